"""The road of a person: the installed ``orch`` in a folder of their own, every command as the documents print it.

``person`` types, ``printed`` reads what README, docs and messages tell people to type, ``walk`` types all of it
(``make road``). Start with ``walk``.
"""
