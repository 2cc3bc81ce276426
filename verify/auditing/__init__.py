"""Find the custom rules that a program, a script or a test suite calls, and verify each of them. See `verify.audit`.

listen: hears each call of a rule. collect: all rules of one program. examine: from a rule to its verdict. baseline: differences that are meant.
"""
