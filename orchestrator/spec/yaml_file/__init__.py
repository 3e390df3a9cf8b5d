"""Read YAML into plain values and record their line and column; write it. Independent of what the values mean.

May import ``spec.mistakes``. Start with ``document``.
"""
