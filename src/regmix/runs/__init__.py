"""Run directories: the records that they hold, how they are written and read. No other folder knows their layout."""

from regmix.runs.directory import CHECKPOINTS, ENVIRONMENT, METRICS, RESULT, Run
from regmix.runs.journal import Journal
from regmix.runs.recognised import CONFIG
from regmix.runs.records import Checkpoint
from regmix.runs.shown import REPORT

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "ENVIRONMENT",
    "METRICS",
    "REPORT",
    "RESULT",
    "Checkpoint",
    "Journal",
    "Run",
]
