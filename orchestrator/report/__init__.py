"""What a person reads in the terminal: progress, status, plans.

Turns events and values into lines; decides nothing and records nothing. May import ``plan`` and everything below it.
Start with ``progress``.
"""
