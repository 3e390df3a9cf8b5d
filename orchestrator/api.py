"""orch from Python: open sweeps and read what they hold."""
