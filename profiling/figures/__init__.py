"""Every chart: plotly figures as plain dicts, and the ladder as SVG. Nothing here imports plotly."""
