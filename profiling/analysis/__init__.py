"""Analyses of a trace, one file per question. They only compute: nothing here prints, plots or imports torch."""
