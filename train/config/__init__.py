"""Everything before the first tensor: schema, options, composition, command line. Imports no torch."""
