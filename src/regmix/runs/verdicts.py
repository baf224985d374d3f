"""Verdicts on masked gradients, which are about weights, whatever the images."""

from collections.abc import Sequence
from dataclasses import replace

from regmix.runs.evaluations import Stored
from regmix.runs.records import Subject


def with_verdicts(stored: Sequence[Stored]) -> list[Stored]:
    """The evaluations of a run, the latest last; those that did not probe for masked gradients get the latest verdict
    on the same weights.

    Otherwise a larger evaluation without a probe would hide that the gradients are masked.
    """
    verdicts = {_model(each.evaluation.subject): each.evaluation.masking for each in stored if each.evaluation.masking}
    return [
        replace(each, evaluation=replace(each.evaluation, masking=verdict))
        if each.evaluation.masking is None and (verdict := verdicts.get(_model(each.evaluation.subject)))
        else each
        for each in stored
    ]


def _model(subject: Subject) -> tuple[object, ...]:
    """What the answers of a model follow from."""
    return subject.checkpoint, subject.weights, subject.settings, subject.draws, *sorted(subject.code.values())
