"""Export the winner as SavedModel, TFLite and ONNX, and measure each format.

May import everything in ``trainers``. Start with ``export``, the worker's job: ``write`` and ``run`` hold one function
per format of the table in ``formats``.
"""
