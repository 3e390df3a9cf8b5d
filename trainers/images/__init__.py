"""From a file to pixels: decoding, squares, crops, augmentation.

Imports no TensorFlow. May import ``config`` and what is below. Start with ``decode``.
"""
