"""Records in, tables, plots and one page out: nothing here measures or judges."""

from harness.report.frame import frame, sample_frame
from harness.report.page import Report, write_report

__all__ = ["Report", "frame", "sample_frame", "write_report"]
