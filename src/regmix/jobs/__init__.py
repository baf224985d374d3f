"""Whole jobs in one call: train, resume, evaluate a run, report. Command line and Python call the same functions."""

from regmix.jobs.evaluation import evaluate_run
from regmix.jobs.reporting import Report, report
from regmix.jobs.training import resume, train

__all__ = ["Report", "evaluate_run", "report", "resume", "train"]
