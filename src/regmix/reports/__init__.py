"""Presents run directories, which are only read: one HTML file about one or several runs, and tables of comparisons."""

from regmix.reports.report import write_report

__all__ = ["write_report"]
