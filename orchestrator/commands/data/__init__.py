"""What the verbs of ``orch data`` do: bad files, the preview, suspected labels.

May import what ``commands`` may. Start with ``preview``.
"""
