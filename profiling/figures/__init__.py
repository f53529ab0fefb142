"""The charts: plotly figures as plain dictionaries, and the ladder as SVG. No module here imports plotly."""
