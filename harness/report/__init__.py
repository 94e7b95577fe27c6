"""Records in, tables, plots and one page out: nothing here measures or judges."""

from harness.report.frame import frame, sample_frame
from harness.report.page import Report, write_report
from harness.report.trust import selfcheck_of

__all__ = ["Report", "frame", "sample_frame", "selfcheck_of", "write_report"]
