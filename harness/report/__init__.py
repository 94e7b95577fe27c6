"""Records in, tables, plots and one page out: nothing here measures or judges."""

from harness.report.frame import frame, sample_frame
from harness.report.page import write_report

__all__ = ["frame", "sample_frame", "write_report"]
