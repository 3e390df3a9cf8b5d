"""The file's sections, one module each: ``data``, ``budget``, ``final``, ``resources``, ``tracking``.

May import ``spec.mistakes`` and ``objectives``. Start with ``base``. The section ``search`` is ``spec.space``.
"""
