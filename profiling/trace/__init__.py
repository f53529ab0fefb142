"""A torch.profiler trace as columns. Imports nothing: `profiling.trace.files` must work without numpy."""
