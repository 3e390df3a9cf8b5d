"""The YAML file: reading, checking, and its values.

May import ``machine`` and what is below, and the tables of ``trainers``. Start with ``load``; ``sweep`` is the whole
file, ``space`` its search section.
"""
