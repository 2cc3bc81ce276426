"""Many verifications that lose nothing and let no case take them down: a plan, a journal, workers, and who places the work on them.

config -> plan -> journal <- supervisor -> executors -> contained -> worker

One process, the supervisor, plans, hands out units and writes each result to the journal. It never imports the users' code, nor JAX: that is done in worker
processes, of which each place that runs units (a thread here, a process of a cluster there) owns one. Only text travels.
"""
