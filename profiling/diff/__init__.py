"""Comparison of two traces or runs: what changed, and where the difference comes from."""
