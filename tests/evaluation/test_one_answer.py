"""Which accuracies are no more than the share of one class."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regmix.evaluation import one_answer
from regmix.evaluation.one_answer import above_largest_class
from regmix.types import OneAnswer

NAMES = ("cat", "dog", "bird")


def labels(*counts: int) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def test_a_model_that_answers_one_class_is_named() -> None:
    y = labels(50, 40, 10)
    assert one_answer(torch.full_like(y, 1), y, NAMES) == OneAnswer("dog", 1.0)
    nearly = torch.full_like(y, 1)
    nearly[0] = 0
    found = one_answer(nearly, y, NAMES)
    assert found == OneAnswer("dog", 0.99)
    assert found.text("the test images") == ('the model answers "dog" for 99.0% of the test images, whatever they show')


@pytest.mark.parametrize("counts", [(50, 50), (95, 5), (99, 1), (990, 10), (100, 0), (1, 0), (0, 3)])
def test_a_model_that_is_right_is_not_named_however_one_sided_the_labels_are(counts: tuple[int, ...]) -> None:
    y = labels(*counts)
    assert one_answer(y, y, NAMES) is None


def test_of_one_sided_labels_the_answers_to_the_others_decide() -> None:
    y = labels(95, 5)
    assert one_answer(torch.zeros_like(y), y, NAMES) == OneAnswer("cat", 1.0)
    y = labels(97, 3)
    assert one_answer(torch.zeros_like(y), y, NAMES) is None, "three images can be three mistakes"
    y = labels(990, 10)
    half = y.clone()
    half[-5:] = 0
    assert one_answer(half, y, NAMES) is None


def test_no_image_is_no_answer() -> None:
    assert one_answer(labels(0), labels(0), NAMES) is None


@pytest.mark.parametrize(
    ("counts", "right", "above"),
    [
        ((50, 50), 95, True),  # of two classes, 2 / classes is 100 %
        ((50, 50), 59, True),
        ((50, 50), 58, False),
        ((50, 50), 5, False),
        ((10,) * 10, 16, True),
        ((10,) * 10, 15, False),
        ((90, 10), 90, False),
        ((90, 10), 96, True),
        ((90, 10), 50, False),
        ((99, 1), 100, True),  # no more can be asked of it
        ((99, 1), 99, False),
        ((100,), 100, False),
    ],
)
def test_an_accuracy_is_held_against_the_most_frequent_class(counts, right, above) -> None:
    y = labels(*counts)
    assert above_largest_class(torch.arange(len(y)) < right, y) is above


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any))
def test_answering_the_most_frequent_class_is_never_above_it(counts: list[int]) -> None:
    y = labels(*counts)
    assert not above_largest_class(y == y.bincount().argmax(), y)
