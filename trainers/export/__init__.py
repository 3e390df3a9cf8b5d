"""The winner as SavedModel, TFLite and ONNX, and what each of them answers.

May import everything in ``trainers``. Start with ``export``, the worker's job: ``write`` and ``run`` hold one function
per format of the table in ``formats``.
"""
