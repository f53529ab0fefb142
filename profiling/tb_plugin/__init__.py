"""The TensorBoard tab "A/B Trace"."""
