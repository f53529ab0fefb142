"""Interleaved measurement of two arms, whatever an arm is. Knows nothing of configurations; imports no torch."""
