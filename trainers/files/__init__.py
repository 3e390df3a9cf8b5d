"""Reading and writing files safely: plain files only, whole files or none.

Imports no other package. Start with ``atomic``.
"""
