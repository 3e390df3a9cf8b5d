"""What a sweep will do and cost, before it runs: estimates, simulation, calibration.

Pure, except ``calibrate`` and ``plan_file``. May import ``search`` and everything below it. Start with ``plan``.
"""
