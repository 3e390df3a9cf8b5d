"""A sweep's YAML file: reading it, validating it, and the values it becomes.

May import ``machine`` and the packages below it, and the tables of ``trainers``. Start with ``load``; ``sweep`` is the
whole file, ``sections`` and ``space`` its parts.
"""
