"""Whole jobs in one call: train, resume, evaluate a run, report. The command line and Python call the same functions.

This folder imports all rooms but the command line and studies; only the command line and the package itself import it.
"""

from regmix.jobs.evaluation import evaluate_run
from regmix.jobs.reporting import Report, report
from regmix.jobs.training import resume, train

__all__ = ["Report", "evaluate_run", "report", "resume", "train"]
