"""Backbones as Keras models, their frozen prefixes, weights, costs.

May import ``config``, ``store`` and what is below. Start with ``prefix``.
"""
