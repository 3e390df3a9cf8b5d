"""YAML text as plain values that know their place in the file. Knows nothing of sweeps.

May import ``spec.mistakes``. Start with ``document``.
"""
