"""Memories: what is read is what was written, for images where the views saw it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods import reference
from regmix.methods.memory import Memory
from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.methods.storage import OneForAll, Part, PerClass, PerRow
from regmix.types import Batch, View

COUNT, SHAPE, PAD = 6, (2, 3, 5), 2
CPU = torch.device("cpu")
INDEX = torch.tensor([4, 0, 5])

offsets = st.lists(st.integers(0, 2 * PAD), min_size=3, max_size=3).map(torch.tensor)
flips = st.lists(st.booleans(), min_size=3, max_size=3).map(torch.tensor)
views = st.builds(View, offsets, offsets, flips, st.none())
quick = settings(deadline=None, max_examples=40)


def noise(seed: int, count: int = 3, limit: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return limit * (2 * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64) - 1)


def a_batch(view: View | None = None) -> Batch:
    return Batch(torch.zeros(3, *SHAPE, dtype=torch.float64), torch.zeros(3, dtype=torch.long), INDEX, view)


def per_image(dtype: torch.dtype = torch.float64, limit: float = 1.0) -> PerImage:
    return PerImage(COUNT, SHAPE, PAD, CPU, dtype=dtype, limit=limit)


def test_it_begins_with_nothing() -> None:
    for dtype in (torch.int8, torch.float8_e5m2, torch.bfloat16, torch.float64):
        assert (per_image(dtype).read(a_batch()) == 0).all()


def test_without_views_it_returns_what_was_written_and_touches_no_other_example() -> None:
    prior, first, second = per_image(), noise(0), noise(1)
    prior.write(a_batch(), first)
    assert torch.equal(prior.read(a_batch()), first)
    assert (prior.gather()[[1, 2, 3]] == 0).all()
    prior.write(a_batch(), second)
    assert torch.equal(prior.read(a_batch()), second)


@quick
@given(views)
def test_reading_shows_what_the_view_shows(view: View) -> None:
    prior = per_image()
    prior.gather().copy_(noise(0, COUNT))
    expected = reference.show(prior.gather()[INDEX], view, PAD)
    assert torch.equal(prior.read(a_batch(view)), expected)


@quick
@given(views)
def test_writing_goes_where_the_view_looked_and_nowhere_else(view: View) -> None:
    prior, seen = per_image(), noise(1)
    prior.gather().copy_(noise(0, COUNT))
    expected = prior.gather().clone()
    expected[INDEX] = reference.put_back(seen, expected[INDEX], view, PAD)
    prior.write(a_batch(view), seen)
    assert torch.equal(prior.gather(), expected)


@quick
@given(views, views)
def test_a_value_stays_with_its_pixel_from_one_view_to_the_next(written: View, read: View) -> None:
    prior, seen = per_image(), noise(2)
    prior.write(a_batch(written), seen)
    whole = reference.put_back(seen, torch.zeros_like(seen), written, PAD)
    assert torch.equal(prior.read(a_batch(read)), reference.show(whole, read, PAD))


@pytest.mark.parametrize("limit", [8 / 255, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_int8_rounds_to_the_nearest_of_254_steps(dtype: torch.dtype, limit: float) -> None:
    prior, batch = per_image(torch.int8, limit), a_batch()._replace(x=torch.zeros(3, *SHAPE, dtype=dtype))
    values = noise(3, limit=limit).to(dtype)
    values[0, 0, 0, :3] = torch.tensor([limit, -limit, 0.0])
    prior.write(batch, values)
    read = prior.read(batch)
    assert prior.gather().dtype == torch.int8
    assert read.dtype == dtype
    assert (read - values).abs().max() <= limit / 254 * 1.0001
    # The corners of the ball, where most perturbations lie, are kept.
    torch.testing.assert_close(read[0, 0, 0, :3], values[0, 0, 0, :3], rtol=1e-6, atol=0)
    # A value that was read is a value that is kept: memory does not drift.
    prior.write(batch, read)
    assert torch.equal(prior.read(batch), read)


def test_int8_stops_at_its_limit() -> None:
    prior = per_image(torch.int8, 0.1)
    prior.write(a_batch(), torch.full((3, *SHAPE), 5.0, dtype=torch.float64))
    torch.testing.assert_close(prior.read(a_batch()), torch.full((3, *SHAPE), 0.1, dtype=torch.float64))
    prior.write(a_batch(), torch.full((3, *SHAPE), -5.0, dtype=torch.float64))
    torch.testing.assert_close(prior.read(a_batch()), torch.full((3, *SHAPE), -0.1, dtype=torch.float64))


@quick
@given(views)
def test_int8_does_not_change_what_the_view_did_not_show(view: View) -> None:
    prior = per_image(torch.int8, 0.1)
    prior.write(a_batch(), noise(0, limit=0.1))
    before = prior.gather().clone()
    shown = reference.put_back(torch.ones(3, *SHAPE), torch.zeros(3, *SHAPE), view, PAD).bool()
    prior.write(a_batch(view), noise(1, limit=0.1))
    assert torch.equal(prior.gather()[INDEX][~shown], before[INDEX][~shown])
    assert torch.equal(prior.gather()[[1, 2, 3]], before[[1, 2, 3]])


def test_bfloat16_keeps_tiny_numbers() -> None:
    prior, values = per_image(torch.bfloat16), noise(4, limit=1e-9)
    prior.write(a_batch(), values)
    torch.testing.assert_close(prior.read(a_batch()), values, rtol=2**-8, atol=0)


def test_float8_keeps_an_eighth_over_nine_decades_and_never_overflows() -> None:
    prior, values = per_image(torch.float8_e5m2), noise(4)
    for size in (1e-3, 1.0, 1e4):
        prior.write(a_batch(), size * values)
        torch.testing.assert_close(prior.read(a_batch()), size * values, rtol=0.125, atol=1e-5)
    prior.write(a_batch(), 1e9 * values)
    assert (prior.read(a_batch()) == 57344 * values.sign()).all()
    assert prior.gather().element_size() == 1


def test_rows_of_the_batch_before() -> None:
    prior, first = PerRow(SHAPE, CPU), noise(0)
    assert (prior.read(a_batch()) == 0).all()
    prior.write(a_batch(), first)
    moved = a_batch()._replace(index=torch.tensor([1, 2, 3]))
    assert torch.equal(prior.read(moved), first)
    shorter, longer = (a_batch()._replace(x=torch.zeros(n, *SHAPE, dtype=torch.float64)) for n in (2, 5))
    assert torch.equal(prior.read(shorter), first[:2])
    assert torch.equal(prior.read(longer), torch.cat([first, torch.zeros(2, *SHAPE)]))


def test_one_number_for_every_image() -> None:
    prior = NumberPerImage(COUNT, CPU)
    prior.write(a_batch(), torch.tensor([1.0, 2.0, 3.0]))
    assert prior.read(a_batch()).tolist() == [1, 2, 3]
    assert prior.gather().tolist() == [2, 0, 0, 0, 1, 3]


def test_one_tensor_for_every_class_or_for_all() -> None:
    batch = a_batch()._replace(y=torch.tensor([1, 3, 1]))
    per_class, one = PerClass(4, SHAPE, CPU), OneForAll(SHAPE, CPU)
    assert (per_class.read(batch) == 0).all()
    assert (one.read(batch) == 0).all()
    tables = noise(0, 4)
    per_class.write(batch, tables)
    one.write(batch, tables[2])
    assert torch.equal(per_class.read(batch), tables[[1, 3, 1]])
    assert torch.equal(one.read(batch), tables[2])
    assert torch.equal(per_class.gather(), tables)
    assert per_class.read(batch._replace(x=batch.x.float())).dtype == torch.float32


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_does_not_replace_what_was_kept(bad: float) -> None:
    """A step that is left out must not change what a method has learned, nor set it back to zero."""
    batch, numbers = a_batch(), torch.tensor([1.0, 2.0, 3.0])
    kept: dict[str, tuple[Part, Tensor]] = {
        "int8": (per_image(torch.int8, 0.1), noise(0, limit=0.1)),
        "bfloat16": (per_image(torch.bfloat16), noise(0)),
        "float8": (per_image(torch.float8_e5m2), noise(0)),
        "numbers": (NumberPerImage(COUNT, CPU), numbers.clone()),
        "rows": (PerRow(SHAPE, CPU), noise(0)),
    }
    for part, values in kept.values():
        part.write(batch, values)
        before, good = part.read(batch).clone(), values.flip(0)
        broken = good.clone()
        broken[1].view(-1)[0] = bad
        part.write(batch, broken)
        after = part.read(batch)
        assert torch.equal(after[1], before[1])
        part.write(batch, good)
        assert torch.equal(after[[0, 2]], part.read(batch)[[0, 2]])
    whole, per_class, other = OneForAll(SHAPE, CPU), PerClass(3, SHAPE, CPU), OneForAll((0,), CPU)
    broken = noise(1)
    broken[1].view(-1)[0] = bad
    for part, values, worse in ((whole, noise(0)[1], broken[1]), (per_class, noise(0), broken)):
        part.write(batch, values)
        part.write(batch, worse)
    assert torch.equal(whole.gather(), noise(0)[1])
    assert torch.equal(per_class.gather(), torch.stack([broken[0], noise(0)[1], broken[2]])), "the other classes learn"
    other.write(batch, broken)
    assert other.gather().isfinite().all()


def test_a_read_only_memory_shows_the_same_and_keeps_nothing() -> None:
    memory = Memory(delta=per_image(), v=NumberPerImage(COUNT, CPU))
    memory["delta"].write(a_batch(), noise(1))
    twin = memory.read_only()
    assert torch.equal(twin["delta"].read(a_batch()), noise(1))
    twin["delta"].write(a_batch(), noise(2))
    twin["v"].write(a_batch(), torch.ones(3))
    assert torch.equal(memory["delta"].read(a_batch()), noise(1))
    assert (memory["v"].gather() == 0).all()


def test_a_memorys_state_restores_it() -> None:
    memory = Memory(delta=per_image(torch.int8, 0.1), momentum=per_image(torch.float8_e5m2))
    for prior in memory.parts.values():
        prior.write(a_batch(), noise(5, limit=0.1))
    other = Memory(delta=per_image(torch.int8, 0.1), momentum=per_image(torch.float8_e5m2))
    other.load_state_dict({name: value.clone() for name, value in memory.state_dict().items()})
    for name, prior in memory.parts.items():
        assert torch.equal(prior.gather(), other[name].gather())
        assert other[name].gather().dtype == prior.gather().dtype
    # The state is a copy's source, not a shared tensor: writing to one leaves the other.
    other["delta"].write(a_batch(), noise(6, limit=0.1))
    assert not torch.equal(memory["delta"].gather(), other["delta"].gather())
