import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from regmix.data import Digits, ImageSet, Loader, batches, load, take
from regmix.types import UserError


def epoch(images, number, batch_size=16, pad=1, flip=True, seed=0):
    return list(Loader(images, batch_size, "cpu", pad=pad, flip=flip, seed=seed).epoch(number))


@given(st.integers(1, 60), st.integers(1, 70))
def test_batches_have_nearly_equal_sizes_and_hold_every_example_once(n, batch_size):
    images = ImageSet(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64), ("a",))
    loader = Loader(images, batch_size, "cpu", pad=0, flip=False, seed=0)
    dealt = list(loader.epoch(0))
    sizes = [len(batch.x) for batch in dealt]
    assert len(dealt) == len(loader) == -(-n // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat([batch.index for batch in dealt]).tolist()) == list(range(n))


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True), (0, False)])
def test_a_batch_is_what_its_index_and_view_say(some_images, pad, flip):
    padded = F.pad(some_images.images, (pad,) * 4)
    for x, y, index, view, *_ in epoch(some_images, 3, pad=pad, flip=flip):
        shown = take(padded, index, view, pad) if view else some_images.images[index]
        assert (view is None) == (pad == 0 and not flip)
        assert x.dtype == torch.float32
        assert torch.equal(x, shown.float() / 255)
        assert torch.equal(y, some_images.labels[index])
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_grey_images_are_plain_contiguous():
    for pad in (0, 1):
        for batch in epoch(load(Digits(), "test"), 0, pad=pad, flip=False):
            assert batch.x.shape[1:] == (1, 8, 8)
            assert batch.x.stride() == (64, 64, 8, 1)


def test_an_epoch_depends_on_seed_and_number_alone(some_images):
    loader = Loader(some_images, 16, "cpu", pad=1, flip=True, seed=4)
    list(loader.epoch(0))
    torch.manual_seed(99)
    for ours, other in zip(loader.epoch(7), epoch(some_images, 7, seed=4), strict=True):
        assert torch.equal(ours.x, other.x)
        assert torch.equal(ours.index, other.index)
        assert all(map(torch.equal, ours.view[:3], other.view[:3]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_epoch_is_the_same_on_every_device(some_images):
    loader = Loader(some_images, 16, "cuda", pad=1, flip=True, seed=4)
    for ours, other in zip(loader.epoch(7), epoch(some_images, 7, seed=4), strict=True):
        assert ours.x.is_cuda
        assert torch.equal(ours.x.cpu(), other.x)
        assert torch.equal(ours.index.cpu(), other.index)


def test_the_global_random_state_is_left_alone(some_images):
    before = torch.get_rng_state()
    epoch(some_images, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("seed", "number"), [(0, 1), (1, 0)])
def test_other_epochs_and_seeds_have_another_order(some_images, seed, number):
    first, other = epoch(some_images, 0)[0], epoch(some_images, number, seed=seed)[0]
    assert not torch.equal(first.index, other.index)
    assert not torch.equal(first.view.top, other.view.top)


def test_black_and_white_are_exactly_zero_and_one():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    images = ImageSet(pixels, torch.tensor([0, 1]), ("black", "white"))
    (batch,) = epoch(images, 0, pad=0, flip=False)
    assert torch.equal(batch.x.flatten(), batch.index.float())


@pytest.mark.parametrize(
    ("n", "batch_size", "pad", "message"),
    [(0, 8, 0, "no images"), (4, 0, 0, "batch size must be at least 1"), (4, 8, -1, "padding")],
)
def test_impossible_settings_are_refused(some_images, n, batch_size, pad, message):
    few = some_images.subset(torch.arange(n))
    with pytest.raises(UserError, match=message):
        Loader(few, batch_size, "cpu", pad=pad, flip=False, seed=0)


@pytest.mark.parametrize("batch_size", [1, 33, 100, 1000])
def test_evaluation_goes_through_the_images_in_order(some_images, batch_size):
    seen = list(batches(some_images, batch_size, "cpu"))
    assert torch.equal(torch.cat([batch.x for batch in seen]), some_images.images.float() / 255)
    assert torch.equal(torch.cat([batch.y for batch in seen]), some_images.labels)
    assert torch.equal(torch.cat([batch.index for batch in seen]), torch.arange(100))
    assert all(batch.view is None for batch in seen)
    assert all(batch.x.is_contiguous(memory_format=torch.channels_last) for batch in seen)


def test_evaluation_of_no_images_has_no_batches(some_images):
    assert not list(batches(some_images.subset(torch.arange(0)), 8, "cpu"))
    with pytest.raises(UserError, match="batch size"):
        list(batches(some_images, 0, "cpu"))


@pytest.mark.parametrize("replays", [2, 3, 4])
def test_replays_show_every_batch_as_often_and_a_pass_takes_as_many_epochs(some_images, replays):
    plain = Loader(some_images, 16, "cpu", pad=1, flip=True, seed=4)
    again = Loader(some_images, 16, "cpu", pad=1, flip=True, seed=4, replays=replays)
    passes = [batch for number in range(2) for batch in plain.epoch(number)]
    shown = [batch for number in range(2 * replays) for batch in again.epoch(number)]
    assert len(shown) == replays * len(passes)
    assert all(len([*again.epoch(number)]) == len(plain) for number in range(3))
    for step, batch in enumerate(shown):
        expected = passes[step // replays]
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.index, expected.index)
        assert all(map(torch.equal, batch.view[:3], expected.view[:3]))


def test_a_replayed_epoch_can_be_begun_anywhere(some_images):
    one, other = (Loader(some_images, 16, "cpu", pad=1, flip=True, seed=4, replays=3) for _ in range(2))
    list(one.epoch(0))
    for ours, theirs in zip(one.epoch(4), other.epoch(4), strict=True):
        assert torch.equal(ours.index, theirs.index)
