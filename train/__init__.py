"""The training pipeline: data, loop, variants and the records of runs."""
