"""Ray: sessions, workers, checkpoints, lost workers.

May import ``spec`` and what is below. Start with ``ray_session``.
"""
