import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regmix.data import ImageSet, split_train
from regmix.data.splits import stratified_order
from regmix.types import UserError

label_lists = st.lists(st.integers(0, 4), min_size=2, max_size=120)


def numbered(labels: list[int]) -> ImageSet:
    """Images that carry their own position as their one pixel."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return ImageSet(pixels, torch.tensor(labels), tuple("abcde"))


def positions(images: ImageSet) -> list[int]:
    return images.images.flatten().tolist()


@given(label_lists, st.integers(0, 2**32), st.data())
def test_train_and_validation_are_disjoint_and_of_the_sizes_asked_for(labels, seed, data):
    validation = data.draw(st.integers(0, len(labels) - 1))
    examples = data.draw(st.none() | st.integers(1, len(labels) - validation))
    train, held_out = split_train(numbered(labels), examples, validation, seed)
    assert len(held_out) == validation
    assert len(train) == (len(labels) - validation if examples is None else examples)
    assert not set(positions(train)) & set(positions(held_out))
    for part in (train, held_out):
        assert positions(part) == sorted(set(positions(part)))
        assert part.labels.tolist() == [labels[i] for i in positions(part)]


@given(label_lists, st.integers(0, 2**32), st.data())
def test_validation_does_not_depend_on_the_number_of_examples(labels, seed, data):
    validation = data.draw(st.integers(0, len(labels) - 1))
    fewer = data.draw(st.integers(1, len(labels) - validation))
    all_train, first = split_train(numbered(labels), None, validation, seed)
    some_train, second = split_train(numbered(labels), fewer, validation, seed)
    assert positions(first) == positions(second)
    assert set(positions(some_train)) <= set(positions(all_train))


@given(st.integers(2, 5), st.integers(1, 20), st.integers(0, 2**32))
def test_every_prefix_of_balanced_classes_is_balanced(classes, per_class, seed):
    labels = torch.arange(classes).repeat(per_class)
    order = stratified_order(labels, seed)
    counts = np.cumsum(np.eye(classes)[labels[order].numpy()], axis=0)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1


def test_unequal_classes_keep_their_shares(some_images):
    train, validation = split_train(some_images, 60, 20, seed=3)
    assert validation.labels.bincount().tolist() == [10, 6, 3, 1]
    assert train.labels.bincount().tolist() == [30, 18, 9, 3]


def test_seeds_choose_differently_and_the_same_seed_alike():
    images = numbered([0, 1] * 50)
    choices = [positions(split_train(images, None, 20, seed)[1]) for seed in (0, 0, 1)]
    assert choices[0] == choices[1] != choices[2]


def test_the_choice_never_changes():
    assert stratified_order(torch.tensor([0, 1, 1, 0, 1, 2, 1]), seed=5).tolist() == [4, 3, 2, 5, 6, 0, 1]


@pytest.mark.parametrize(
    ("examples", "validation", "message"),
    [
        (81, 20, "81 training examples are not available: the set has 100, of which 20"),
        (0, 20, "0 training examples are not available"),
        (None, 100, "100 validation images leave nothing of the 100"),
        (None, 101, "101 validation images"),
        (10, -1, "must not be negative: -1"),
    ],
)
def test_impossible_wishes_are_refused(some_images, examples, validation, message):
    with pytest.raises(UserError, match=message):
        split_train(some_images, examples, validation, seed=0)
