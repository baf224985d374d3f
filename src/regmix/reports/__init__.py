"""Presents run directories, which are only read: one HTML file about one or several runs, and tables of comparisons.

This folder imports types, threats, version, runtime, runs and evaluation (words and arithmetic only); studies and cli
may import it.
"""

from regmix.reports.report import write_report

__all__ = ["write_report"]
