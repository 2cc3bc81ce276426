"""Breaks a rule's backward on purpose, one edit at a time, and counts what the verification catches.

ends.py      what may go wrong at its ends: a residual, the incoming cotangent, a cotangent of an argument
mutant.py    a function with the primal of the user's and a broken derivative
screen.py    whether an edit changes any cotangent at all, in float64, on given inputs
ladder.py    the smallest relative error that is caught in each dtype
measure.py   all of it on one spec; parallel.py: in several processes; command.py: on the command line
"""
