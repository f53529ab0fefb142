"""Runs that are killed, that meet faults for real, and that last long: `python -m tests.faults KIND`."""
