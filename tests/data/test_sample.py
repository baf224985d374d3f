"""Samples of a split: fair to every class, nested, repeatable, and described in words."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regmix.data import draw
from regmix.types import Sample, UserError


def ordered(*counts: int) -> torch.Tensor:
    """Labels of classes of these sizes, ordered by class as the files of folders are."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.data(), st.integers(0, 2**32 - 1))
def test_every_class_has_its_share_and_smaller_samples_are_parts_of_larger_ones(counts, data, seed) -> None:
    labels = ordered(*counts)
    count = data.draw(st.integers(1, len(labels)))
    sample, positions = draw(labels, count, seed=seed)
    assert (sample.count, sample.of) == (len(positions), len(labels)) == (count, len(labels))
    assert (positions[1:] > positions[:-1]).all()
    share = np.array(counts) * count / len(labels)
    drawn = labels[positions].bincount(minlength=len(counts)).numpy()
    assert (np.abs(drawn - share) <= 2).all()
    _, fewer = draw(labels, data.draw(st.integers(1, count)), seed=seed)
    assert set(fewer.tolist()) <= set(positions.tolist())


def test_a_sample_of_ordered_files_is_not_the_first_class() -> None:
    labels = ordered(*[400] * 10)
    assert labels[draw(labels, 80)[1]].bincount().tolist() == [8] * 10
    assert labels[draw(labels, 80, "first")[1]].unique().tolist() == [0]


def test_of_more_classes_than_images_any_class_may_be_drawn() -> None:
    labels = ordered(*[3] * 50)
    drawn = [labels[draw(labels, 10, seed=seed)[1]] for seed in range(40)]
    assert all(len(one.unique()) == 10 for one in drawn)
    assert len(torch.cat(drawn).unique()) == 50


def test_every_image_has_the_same_chance_whatever_the_size_of_its_class() -> None:
    labels = ordered(300, 30, 3)
    often = torch.zeros(len(labels))
    for seed in range(2000):
        often[draw(labels, 20, seed=seed)[1]] += 1
    by_class = torch.stack([often[labels == y].mean() for y in range(3)]) / 2000
    assert torch.allclose(by_class, torch.tensor(20 / 333), rtol=0.15)


def test_seeds_draw_differently_and_the_same_seed_alike() -> None:
    labels = ordered(50, 50)
    first, again, other = (draw(labels, 20, seed=seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_the_draw_never_changes() -> None:
    assert draw(ordered(9, 4, 2), 6, seed=3)[1].tolist() == [0, 1, 2, 8, 11, 13]


def test_the_whole_split_is_all_of_it_however_it_was_asked_for() -> None:
    labels = ordered(3, 3)
    for count, how, seed in ((None, "stratified", 5), (6, "first", 0), (6, "stratified", 1)):
        sample, positions = draw(labels, count, how, seed)
        assert sample == Sample(6, 6, "all")
        assert positions.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_sample_says_how_it_was_drawn() -> None:
    assert Sample(500, 10_000, "stratified").text() == (
        "500 of 10,000 test images, drawn evenly from the classes (seed 0)"
    )
    assert Sample(500, 10_000, "first").text("test digits") == "the first 500 of 10,000 test digits"
    assert Sample(10_000, 10_000, "all").text() == "all 10,000 test images"


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (7, 0), (-1, 0), (3, -1)])
def test_impossible_samples_are_refused(count: int, seed: int) -> None:
    with pytest.raises(UserError, match=r"cannot be drawn from 6|at least 0"):
        draw(ordered(3, 3), count, seed=seed)
