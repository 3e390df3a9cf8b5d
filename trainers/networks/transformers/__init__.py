"""Vision transformers: their layers, their position tables, and the names of their weights in PyTorch.

Start with ``vit``. Imports nothing of the other networks.
"""
