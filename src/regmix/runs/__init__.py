"""Run directories: what is in them, how they are written and read. No other folder knows their layout.

May import `types` alone; training, evaluation and reports import it.
"""

from regmix.runs.directory import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, RESULT, Run
from regmix.runs.files import append, digest, parse_json, read_text, write_atomically
from regmix.runs.journal import Journal
from regmix.runs.lock import locked
from regmix.runs.records import Checkpoint

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "ENVIRONMENT",
    "METRICS",
    "RESULT",
    "Checkpoint",
    "Journal",
    "Run",
    "append",
    "digest",
    "locked",
    "parse_json",
    "read_text",
    "write_atomically",
]
