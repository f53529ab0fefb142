"""What was measured, and what it means. Knows nothing of train/."""

from profiling.marks import phase, step

__all__ = ["phase", "step"]
