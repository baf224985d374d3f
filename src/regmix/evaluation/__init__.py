"""Evaluation: which test examples survive which attack, and what follows from that."""

from regmix.evaluation.battery import CLEAN, Examples, collect_examples, evaluate
from regmix.evaluation.outcomes import Outcomes, wilson

__all__ = ["CLEAN", "Examples", "Outcomes", "collect_examples", "evaluate", "wilson"]
