"""A rule's backward pass as a traced program that can be looked into and changed; `verify.power` breaks it, `verify.diagnosis` mends it.

opened.py    a call of the user's function with its forward and its pullback apart
surgery.py   the traced pullback run again with some equations changed, and where each stands in the user's source
edits.py     what may go wrong in one equation
steps.py     forward and backward as one flat list of steps with all their values
"""
