"""Which one change of the rule's own source would make its gradient right?

search.py        the changes that are tried, and in how many cases one must hold
change.py        what a change is, and the program run with it
expressions.py   the factor of a term, another number, a slip undone
values.py        another value, or a function of it, in the place of one
source.py        steps and values by the line of the user's source
"""

from verify.diagnosis.mending.search import mends as mends
