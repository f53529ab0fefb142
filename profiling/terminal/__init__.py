"""Tables for people: what the command lines print without `--json`."""
