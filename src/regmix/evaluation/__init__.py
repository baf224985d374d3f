"""Evaluation: which test examples survive which attack, and what follows from that."""

from regmix.evaluation.battery import CLEAN, Examples, Journal, World, collect_examples, evaluate, predict, survivors
from regmix.evaluation.outcomes import Outcomes, wilson
from regmix.evaluation.precision import screened

__all__ = [
    "CLEAN",
    "Examples",
    "Journal",
    "Outcomes",
    "World",
    "collect_examples",
    "evaluate",
    "predict",
    "screened",
    "survivors",
    "wilson",
]
