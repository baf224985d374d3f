"""Evaluation: which test examples survive which attack, and what follows from that."""

from regmix.evaluation.answers import ask, check_tensors, gradient_fault, why
from regmix.evaluation.battery import (
    CLEAN,
    Examples,
    Journal,
    Survivors,
    World,
    collect_examples,
    evaluate,
    not_attacked_note,
    predict,
    repeatable,
    survivors,
)
from regmix.evaluation.corrupted import withstood
from regmix.evaluation.masking import Probe, Verdict, probe, verdict
from regmix.evaluation.one_answer import one_answer
from regmix.evaluation.outcomes import Outcomes, Paired, paired, wilson
from regmix.evaluation.preflight import in_train_mode, preflight, zero_gradients
from regmix.evaluation.rounding import to_uint8

__all__ = [
    "CLEAN",
    "Examples",
    "Journal",
    "Outcomes",
    "Paired",
    "Probe",
    "Survivors",
    "Verdict",
    "World",
    "ask",
    "check_tensors",
    "collect_examples",
    "evaluate",
    "gradient_fault",
    "in_train_mode",
    "not_attacked_note",
    "one_answer",
    "paired",
    "predict",
    "preflight",
    "probe",
    "repeatable",
    "survivors",
    "to_uint8",
    "verdict",
    "why",
    "wilson",
    "withstood",
    "zero_gradients",
]
