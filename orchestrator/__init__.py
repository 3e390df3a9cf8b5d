"""orch decides, schedules and records; it never imports TensorFlow."""

__version__ = "0.1.0"
