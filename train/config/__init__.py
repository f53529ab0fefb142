"""The configuration of a run: schema, options, composition, command line. Imports no torch."""
