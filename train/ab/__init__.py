"""Interleaved A/B: one deviation from the baseline, measured against it."""
