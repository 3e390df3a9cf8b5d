"""Ray sessions, the code that runs in workers, and what happens when a worker or the driver is interrupted.

May import ``spec``, ``machine`` and the packages below them. Start with ``ray_session`` for the driver's side and
``worker`` for the other.
"""
