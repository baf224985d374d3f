"""A verdict on masked gradients is about weights, whatever the images."""

from dataclasses import replace
from pathlib import Path

from regmix.runs.evaluations import Stored
from regmix.runs.records import Evaluation, Masking, Subject
from regmix.runs.verdicts import with_verdicts
from regmix.types import Fingerprint, Sample

SPLIT = Fingerprint(("a", "b"), (50, 50), "pixels", "0" * 32)


def evaluation(weights: str, count: int, masking: Masking | None = None, draws: int = 1) -> Stored:
    subject = Subject("best", weights, "settings", SPLIT, Sample(count, 100, "stratified"), draws)
    return Stored(Path(str(count)), Evaluation(subject, {}, masking=masking))


def test_masked_gradients_that_one_evaluation_has_found_are_told_with_all_of_the_same_weights() -> None:
    masked, sound = Masking("masked", ["a sign"]), Masking("no sign of masking", [])
    stored = [
        evaluation("w", 10, masked), evaluation("w", 100), evaluation("other", 100), evaluation("w", 100, draws=4),
        evaluation("w", 20, sound),
    ]  # fmt: skip
    told = replace(masked, images="10 of 100 test images, drawn evenly from the classes (seed 0)")
    assert [each.evaluation.masking for each in with_verdicts(stored)] == [masked, told, None, None, told]
    moved = replace(stored[1], evaluation=replace(stored[1].evaluation, elsewhere="photos"))
    assert with_verdicts([stored[0], moved])[1].evaluation.masking == told, "images do not matter"


def test_an_evaluation_without_a_probe_gets_the_latest_verdict() -> None:
    undecided, sound = Masking("undecided", []), Masking("no sign of masking", [])
    stored = [evaluation("w", 10, undecided), evaluation("w", 100), evaluation("w", 20, sound)]
    verdicts = [each.evaluation.masking for each in with_verdicts(stored)]
    assert verdicts[::2] == [undecided, sound], "their own"
    assert verdicts[1] == replace(sound, images="20 of 100 test images, drawn evenly from the classes (seed 0)")
