"""Accuracies per class, confusions and the order of breaking, on a table that one can count by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regmix.evaluation import wilson
from regmix.reports.classes import per_class
from regmix.reports.load import LoadedRun
from regmix.reports.subject import Subject, subjects_of
from regmix.runs.evaluations import Outcomes
from regmix.runs.records import Column, Environment, Evaluation, Result
from regmix.runs.records import Subject as About
from regmix.types import Fingerprint, Sample

LABEL = np.array([0, 0, 1, 1, 2, 2])
SURVIVES = {
    "clean": np.array([1, 1, 1, 0, 1, 1], dtype=bool),
    "fgsm@0.1": np.array([1, 1, 1, 0, 0, 1], dtype=bool),
    "pgd-20@0.1": np.array([1, 0, 1, 0, 0, 1], dtype=bool),
    "pgd-20@0.2": np.array([1, 0, 0, 0, 0, 0], dtype=bool),
}
PREDICTED = {"pgd-20@0.1": np.array([0, 2, 1, 2, 0, 2])}


def subject(predicted: dict[str, np.ndarray]) -> Subject:
    columns = {}
    for name, column in SURVIVES.items():
        attack, _, eps = name.partition("@")
        count = int(column.sum())
        columns[name] = Column(attack, float(eps or 0), eps or "0", count / 6, *wilson(count, 6), count)
    split = Fingerprint(("cat", "dog", "eel"), (2, 2, 2), "pixels", "0")
    evaluation = Evaluation(About("best", "w", "s", split, Sample(6, 6, "all")), columns)
    config = {"threat": {"name": "linf", "eps": 0.1}, "method": {"name": "regmix"}}
    index = np.arange(10, 16)
    run = LoadedRun(
        Path("runs/a"), config, Environment(), [], Result(), [], [], [], evaluations={"best": evaluation},
        outcomes={"best": Outcomes(index, LABEL, SURVIVES, predicted)},
    )  # fmt: skip
    return subjects_of([run])[0]


def test_per_class() -> None:
    classes = per_class(subject(PREDICTED))
    assert classes is not None
    assert (classes.checkpoint, classes.attack, classes.eps) == ("best", "PGD-20", "0.1")
    assert [(row.name, row.images, row.clean.accuracy, row.robust.accuracy) for row in classes.rows] == [
        ("cat", 2, 1.0, 0.5), ("dog", 2, 0.5, 0.5), ("eel", 2, 1.0, 0.5),
    ]  # fmt: skip
    assert (classes.rows[0].robust.low, classes.rows[0].robust.high) == pytest.approx(wilson(1, 2))


def test_confusions() -> None:
    classes = per_class(subject(PREDICTED))
    assert classes is not None
    assert classes.matrix == [[1, 0, 1], [0, 1, 1], [1, 0, 1]]
    assert [(pair.label, pair.taken_for, pair.images, pair.of) for pair in classes.pairs] == [
        ("cat", "eel", 1, 2), ("dog", "eel", 1, 2), ("eel", "cat", 1, 2),
    ]  # fmt: skip
    dog = classes.confusion("dog")
    assert dog is not None
    assert dog.taken_for == "eel"


def test_without_predictions_only_the_confusions_are_missing() -> None:
    classes = per_class(subject({}))
    assert classes is not None
    assert (classes.matrix, classes.pairs, classes.confusion("dog")) == (None, [], None)
    assert all(image.taken_for is None for image in classes.first)
    assert per_class(subject({"pgd-20@0.1": np.array([0, -1, 1, 2, 0, 2])})).matrix is None  # one is unknown


def test_the_order_of_breaking() -> None:
    """13 is wrong without an attack; 14 breaks under both attacks at 0.1, 11 under one; 12 and 15 at 0.2; 10 never."""
    classes = per_class(subject(PREDICTED))
    assert classes is not None
    assert [(image.index, image.eps) for image in classes.first] == [(14, 0.1), (11, 0.1), (12, 0.2), (15, 0.2)]
    assert [(image.index, image.eps) for image in classes.last] == [
        (10, None), (15, 0.2), (12, 0.2), (11, 0.1), (14, 0.1),
    ]  # fmt: skip
    assert [image.taken_for for image in classes.first] == ["cat", "eel", None, None]
    assert (classes.wrong, classes.never) == (1, 1)


def test_the_smallest_perturbations_count_in_the_order_of_breaking() -> None:
    """10 survives all attacks but has a perturbation of 0.3; 11 has a smaller one than 0.1; 13 is wrong without any."""
    whole = subject(PREDICTED)
    lengths = {"fmn": np.array([0.3, 0.04, np.inf, 0.0, 0.2, np.inf])}
    classes = per_class(replace(whole, run=replace(whole.run, distances={"best": lengths})))
    assert classes is not None
    assert [(image.index, image.eps) for image in classes.first] == [
        (11, 0.04), (14, 0.1), (12, 0.2), (15, 0.2), (10, 0.3),
    ]  # fmt: skip
    assert [image.attacks for image in classes.first][:2] == [3, 4]
    assert (classes.wrong, classes.never) == (1, 0)


def test_the_class_is_that_of_the_attack_that_breaks_the_image_first() -> None:
    """14 breaks first under both attacks at 0.1, where the judged one counts; 12 only at 0.2, where it is no "eel"."""
    predicted = {"fgsm@0.1": np.array([0, 0, 1, 2, 1, 2]), "pgd-20@0.2": np.array([0, 1, 0, 2, 1, 1])}
    classes = per_class(subject({**PREDICTED, **predicted}))
    assert classes is not None
    assert [(image.index, image.taken_for) for image in classes.first] == [
        (14, "cat"), (11, "eel"), (12, "cat"), (15, "dog"),
    ]  # fmt: skip
    alone = per_class(subject({**predicted, "pgd-20@0.1": np.full(6, -1)}))
    assert alone is not None
    assert [image.taken_for for image in alone.first] == ["dog", None, "cat", "dog"]
