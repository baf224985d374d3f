"""Verdicts on masked gradients, which are about weights, whatever the images."""

from collections.abc import Sequence
from dataclasses import replace

from regmix.runs.evaluations import Stored
from regmix.runs.records import Masking, Subject


def with_verdicts(stored: Sequence[Stored]) -> list[Stored]:
    """The evaluations of a run, the latest last, each with the verdict that holds for its weights.

    It is that gradients are masked, if any evaluation of the same weights has found it: others had fewer images or
    attacks to find it with. Else it is the evaluation's own verdict, or where it did not probe, the latest one.
    """
    found: dict[tuple[object, ...], Masking] = {}
    for each in stored:
        if (masking := each.evaluation.masking) is not None:
            key, images = _model(each.evaluation.subject), each.evaluation.sample_text()
            if key not in found or found[key].verdict != "masked":
                found[key] = replace(masking, images=images)
    return [
        replace(each, evaluation=replace(each.evaluation, masking=verdict))
        if (verdict := found.get(_model(each.evaluation.subject))) is not None
        and (each.evaluation.masking is None or (verdict.verdict == "masked" != each.evaluation.masking.verdict))
        else each
        for each in stored
    ]


def _model(subject: Subject) -> tuple[object, ...]:
    """What the answers of a model follow from."""
    return subject.checkpoint, subject.weights, subject.settings, subject.draws, *sorted(subject.code.values())
