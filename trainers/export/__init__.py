"""The winner as SavedModel, TFLite and ONNX.

May import everything in ``trainers``. Start with ``export``.
"""
