"""What a sweep will do and cost before it runs: calibration, estimates, simulation.

Pure, except ``calibrate``, ``calibration_file`` and ``plan_file``. May import the pure modules of ``search`` and the
packages below it. Start with ``plan``, then read ``playthrough`` and ``simulation``.
"""
