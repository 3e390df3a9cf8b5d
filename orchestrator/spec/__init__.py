"""The YAML file: reading, checking, and the values it stands for.

May import ``machine`` and what is below, and the tables of ``trainers``. Start with ``load``; ``sweep`` is the whole
file, ``space`` its search section.
"""
