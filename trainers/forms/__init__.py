"""One network made of several: the average of their weights, and what a network distilled from them learns.

May import ``training`` and everything below it. Start with ``soup``.
"""
