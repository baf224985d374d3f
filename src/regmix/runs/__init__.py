"""Run directories: what is in them, how they are written and read. No other folder knows their layout.

May import `types` alone; training, evaluation and reports import it.
"""

from regmix.runs.directory import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    EXAMPLES,
    METRICS,
    OUTCOMES,
    RESULT,
    Checkpoint,
    Run,
)
from regmix.runs.files import digest, write_atomically
from regmix.runs.journal import BatteryJournal

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "ENVIRONMENT",
    "EXAMPLES",
    "METRICS",
    "OUTCOMES",
    "RESULT",
    "BatteryJournal",
    "Checkpoint",
    "Run",
    "digest",
    "write_atomically",
]
