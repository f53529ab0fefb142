"""A torch.profiler trace as columns. This file imports nothing: `profiling.trace.files` must not import numpy."""
