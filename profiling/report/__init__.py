"""The report: comparisons as one HTML file that opens offline."""
