"""Reports: one HTML file about one or several run directories, which are only read."""

from regmix.reports.report import write_report

__all__ = ["write_report"]
