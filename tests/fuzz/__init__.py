"""Seeded fuzzing of everything that reads what others wrote or typed: `python -m tests.fuzz`."""
