"""Reading and writing files safely: plain files only, whole files or none.

May import ``errors``. Start with ``atomic``.
"""
