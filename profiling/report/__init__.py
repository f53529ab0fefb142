"""Comparisons in; out comes one HTML file that opens offline, or the ladder as a picture.

write(records, folders, Path("report.html"))
write_picture(records, Path("ladder.svg"))
"""

from profiling.report.collect import collect
from profiling.report.page import write
from profiling.report.picture import write_picture

__all__ = ["collect", "write", "write_picture"]
