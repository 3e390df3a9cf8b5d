"""PyTorch state dicts into Keras weight files: ``orch weights convert``.

Start with ``convert``. ``published`` is the table: which backbones can be converted, and how their arrays are named.
``state_dict`` reads the formats; ``torch_file`` reads PyTorch's own without PyTorch.
"""
