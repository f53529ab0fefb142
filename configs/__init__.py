"""What a user edits, as YAML. A package, so that Hydra finds it when abtrace is installed."""
