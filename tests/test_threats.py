"""Threat models: the geometry of their sets, their random starts, and how a radius is written."""

import math

import numpy as np
import pytest
import torch
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import TypeCheckError
from scipy import stats
from torch import Tensor

from regmix.threats import L1, L2, Linf, format_eps, parse_eps
from regmix.types import UserError

SHAPE = (3, 2, 2, 2)
RADII = [1e-6, 8 / 255, 0.3, 1.0]


def tensors(low: float, high: float) -> st.SearchStrategy[Tensor]:
    numbers = st.floats(low, high, allow_subnormal=False) | st.sampled_from([low, 0.0, high])
    return arrays(np.float64, SHAPE, elements=numbers).map(torch.from_numpy)


pixels, changes = tensors(0.0, 1.0), tensors(-3.0, 3.0)
radii = st.sampled_from(RADII) | st.floats(1e-3, 1.0)
kinds = st.sampled_from([Linf, L2, L1])
quick = settings(deadline=None, max_examples=60)


def lengths(delta: Tensor, kind: type) -> Tensor:
    size = {Linf: lambda row: max(map(abs, row)), L2: lambda row: math.hypot(*row), L1: lambda row: sum(map(abs, row))}
    return torch.tensor([size[kind](row) for row in delta.flatten(1).tolist()], dtype=delta.dtype)


@quick
@given(changes, pixels, radii, kinds)
def test_projection_lands_in_the_ball_and_in_the_range_of_images(
    delta: Tensor, x: Tensor, eps: float, kind: type[Linf | L2 | L1]
) -> None:
    projected = kind(eps=eps).project(delta, x)
    assert (lengths(projected, kind) <= eps * (1 + 1e-12) + 1e-15).all()
    assert (x + projected).min() >= -1e-15
    assert (x + projected).max() <= 1 + 1e-15


@quick
@given(changes, pixels, radii, kinds)
def test_projection_is_idempotent(delta: Tensor, x: Tensor, eps: float, kind: type[Linf | L2 | L1]) -> None:
    threat = kind(eps=eps)
    once = threat.project(delta, x)
    torch.testing.assert_close(threat.project(once, x), once, rtol=0, atol=1e-15)


@quick
@given(changes, pixels, radii)
def test_linf_projection_is_the_nearest_point(delta: Tensor, x: Tensor, eps: float) -> None:
    low, high = torch.maximum(-x, torch.tensor(-eps).double()), torch.minimum(1 - x, torch.tensor(eps).double())
    low, high = low.clamp_min(-eps), high.clamp_max(eps)
    nearest = torch.maximum(low, torch.minimum(high, delta))
    torch.testing.assert_close(Linf(eps=eps).project(delta, x), nearest, rtol=0, atol=1e-7 * eps + 1e-15)


@quick
@given(changes, pixels, radii)
def test_l2_projection_shortens_to_the_radius_and_then_only_clips(delta: Tensor, x: Tensor, eps: float) -> None:
    projected = L2(eps=eps).project(delta, x)
    for one, image, result in zip(delta.numpy(), x.numpy(), projected.numpy(), strict=True):
        length = np.linalg.norm(one)
        shrunk = one if length <= eps else one * (eps / length)
        np.testing.assert_allclose(result, np.clip(image + shrunk, 0, 1) - image, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [Linf, L2])
def test_projection_leaves_what_is_inside_alone(kind: type[Linf | L2 | L1]) -> None:
    x = torch.full((4, 3, 5, 5), 0.5, dtype=torch.float64)
    delta = 0.002 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(kind(eps=0.1).project(delta, x), delta, rtol=0, atol=1e-15)


@quick
@given(tensors(-1e3, 1e3), st.sampled_from([Linf, L2]))
def test_direction_is_the_steepest_of_unit_size(gradient: Tensor, kind: type[Linf | L2 | L1]) -> None:
    """Its product with the gradient is the dual norm: ||g||_1 for Linf, ||g||_2 for L2."""
    step = kind().direction(gradient)
    gain = (gradient * step).flatten(1).sum(1)
    dual = gradient.flatten(1).abs().sum(1) if kind is Linf else lengths(gradient, L2)
    assert (lengths(step, kind) <= 1 + 1e-12).all()
    torch.testing.assert_close(gain, dual, rtol=1e-12, atol=0)


def test_l1_direction_takes_the_twentieth_of_the_elements_with_the_largest_gradients() -> None:
    gradient = torch.randn(3, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    step = L1().direction(gradient).flatten(1)
    for row, one in zip(gradient.flatten(1), step, strict=True):
        largest = row.abs().topk(5).indices
        assert set(one.nonzero()[:, 0].tolist()) == set(largest.tolist())
        torch.testing.assert_close(one[largest], row[largest].sign() / 5)


def test_l1_direction_passes_over_what_cannot_go_further() -> None:
    gradient = torch.tensor([5.0, -4.0, 3.0, -2.0, 1.0, 0.5]).view(1, 1, 1, 6)
    images = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 0.5]).view(1, 1, 1, 6)
    assert L1().direction(gradient, images).flatten().tolist() == [0, 0, 1, 0, 0, 0]
    assert L1().direction(gradient).flatten().tolist() == [1, 0, 0, 0, 0, 0]


@quick
@given(changes, pixels, radii)
def test_l1_projection_is_the_nearest_point(delta: Tensor, x: Tensor, eps: float) -> None:
    """The optimality conditions: with one t >= 0 per example, each element is |delta_i| - t, cut to [0, room_i], with
    the sign of delta_i; t is 0 unless the ball is full."""
    projected = L1(eps=eps).project(delta, x)
    for d, image, result in zip(delta.flatten(1), x.flatten(1), projected.flatten(1), strict=True):
        room = torch.where(d > 0, 1 - image, image)
        free = torch.minimum(d.abs(), room)
        if free.sum() <= eps:
            torch.testing.assert_close(result, d.sign() * free, rtol=0, atol=1e-12)
            continue
        assert float(result.abs().sum()) == pytest.approx(eps, rel=1e-12)
        inside = (result.abs() > 1e-9) & (result.abs() < room - 1e-9)
        t = (d.abs() - result.abs())[inside]
        bound = float(t.mean()) if len(t) else None
        if bound is not None:
            assert (t - bound).abs().max() < 1e-9
            expected = d.sign() * torch.minimum((d.abs() - bound).clamp_min(0), room)
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


def test_l1_starts_lie_on_the_sphere_and_in_the_ball() -> None:
    x = torch.zeros(4000, 1, 1, 3, dtype=torch.float64)
    corner = L1(eps=2).corner(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(corner.flatten(1).abs().sum(1), torch.full((4000,), 2.0).double())
    assert ((corner > 0).double().mean((0, 1, 2)) - 0.5).abs().max() < 0.04
    # on the simplex each share of the sum is Beta(1, 2)
    assert stats.kstest(corner[:, 0, 0, 0].abs().numpy() / 2, stats.beta(1, 2).cdf).pvalue > 1e-3
    inside = L1(eps=2).uniform(x, torch.Generator().manual_seed(0)).flatten(1).abs().sum(1)
    assert stats.kstest((inside / 2) ** 3, stats.uniform(0, 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_direction_has_unit_size_at_every_scale_of_float32(scale: float, kind: type[Linf | L2 | L1]) -> None:
    """A confident model's gradients are tiny; an attack that stalls there overstates robustness."""
    gradient = scale * (1 + torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(lengths(kind().direction(gradient), kind), torch.ones(2))


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_direction_of_a_zero_gradient_is_zero(kind: type[Linf | L2 | L1]) -> None:
    assert (kind().direction(torch.zeros(2, 3, 4, 4)) == 0).all()


@quick
@given(changes, kinds)
def test_norm_is_the_length_per_example(delta: Tensor, kind: type[Linf | L2 | L1]) -> None:
    torch.testing.assert_close(kind().norm(delta), lengths(delta, kind), rtol=1e-12, atol=1e-100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linf_corner_is_plus_or_minus_eps_with_even_odds(dtype: torch.dtype) -> None:
    x = torch.zeros(50, 3, 8, 8, dtype=dtype)  # a corner is not clipped to the image's range
    corner = Linf(eps=8 / 255).corner(x, torch.Generator().manual_seed(0))
    assert corner.dtype == dtype
    assert set(corner.unique().tolist()) == set(torch.tensor([-8 / 255, 8 / 255], dtype=dtype).tolist())
    positive = int((corner > 0).sum())
    assert stats.binomtest(positive, corner.numel()).pvalue > 1e-3
    # Every pixel and every example draws for itself.
    assert len({tuple(row) for row in corner.flatten(1).tolist()}) == len(x)


def test_linf_uniform_is_uniform_in_the_ball() -> None:
    x = torch.zeros(50, 3, 8, 8)
    drawn = Linf(eps=0.2).uniform(x, torch.Generator().manual_seed(0))
    assert drawn.abs().max() <= 0.2
    assert stats.kstest(drawn.flatten().numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3


def test_l2_corner_is_uniform_on_the_sphere() -> None:
    x = torch.zeros(3000, 1, 1, 3, dtype=torch.float64)
    corner = L2(eps=0.7).corner(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(lengths(corner, L2), torch.full((3000,), 0.7, dtype=torch.float64))
    # In three dimensions every coordinate of a point drawn uniformly from the sphere is uniform (Archimedes).
    for coordinate in corner.flatten(1).T:
        assert stats.kstest(coordinate.numpy(), stats.uniform(-0.7, 1.4).cdf).pvalue > 1e-3


def test_l2_uniform_is_uniform_in_the_ball() -> None:
    x = torch.zeros(3000, 2, 2, 1, dtype=torch.float64)
    drawn = L2(eps=0.7).uniform(x, torch.Generator().manual_seed(0))
    # The share of the ball's volume within a point's radius is uniform in (0, 1); so is every direction.
    share = (lengths(drawn, L2) / 0.7) ** 4
    assert stats.kstest(share.numpy(), stats.uniform(0, 1).cdf).pvalue > 1e-3
    assert stats.binomtest(int((drawn > 0).sum()), drawn.numel()).pvalue > 1e-3


@pytest.mark.parametrize("start", ["uniform", "corner"])
@pytest.mark.parametrize("kind", [Linf, L2])
def test_the_same_generator_draws_the_same_start(kind: type[Linf | L2 | L1], start: str) -> None:
    draw, x = getattr(kind(), start), torch.zeros(2, 3, 4, 4)
    first, second = (draw(x, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw(x, torch.Generator().manual_seed(2)))
    before = torch.get_rng_state()
    draw(x, torch.Generator())
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(draw(x), draw(x))


@pytest.mark.parametrize("eps", [0.0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize("kind", [Linf, L2])
def test_a_radius_without_a_set_is_refused(kind: type[Linf | L2 | L1], eps: float) -> None:
    with pytest.raises(UserError, match="eps is"):
        kind(eps=eps)


def test_grey_levels_are_not_taken_for_pixel_units() -> None:
    with pytest.raises(UserError, match="8/255"):
        Linf(eps=8)
    assert Linf(eps=1).eps == 1


@pytest.mark.parametrize(
    ("text", "eps"),
    [
        ("8/255", 8 / 255),
        (" 8/255 ", 8 / 255),
        ("0.03", 0.03),
        ("0", 0.0),
        ("1e-2", 0.01),
        ("16/255", 16 / 255),
        (".5", 0.5),
    ],
)
def test_a_radius_is_read_as_a_fraction_or_a_decimal(text: str, eps: float) -> None:
    assert parse_eps(text) == eps


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eps",
        "8/0",
        "8/",
        "/255",
        "-1",
        "-8/255",
        "8/-255",
        "nan",
        "inf",
        "1e400",
        "8/255/2",
        "8 255",
        "8:255",
        "0/0",
    ],
)
def test_what_is_no_radius_is_refused_with_advice(text: str) -> None:
    with pytest.raises(UserError, match="write it as 8/255") as refused:
        parse_eps(text)
    assert "\n" not in str(refused.value)
    assert repr(text) in str(refused.value)


def test_whole_grey_levels_survive_the_round_trip_exactly() -> None:
    for levels in range(1, 511):
        assert parse_eps(format_eps(levels / 255)) == levels / 255


@quick
@given(st.floats(1e-6, 10))
def test_other_radii_survive_the_round_trip_to_six_digits(eps: float) -> None:
    assert math.isclose(parse_eps(format_eps(eps)), eps, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (128 / 255, "128/255"),
        (0.1, "0.1"),
        (0.2, "0.2"),
        (0.3, "0.3"),
        (0.0, "0"),
        (1.0, "1"),
        (0.031, "0.031"),
    ],
)
def test_a_radius_is_written_as_the_field_does(eps: float, text: str) -> None:
    assert format_eps(eps) == text


def test_the_command_line_reads_radii_both_ways() -> None:
    assert tyro.cli(Linf, args=["--eps", "4/255"]).eps == 4 / 255
    assert tyro.cli(L2, args=["--eps", "0.25"]).eps == 0.25
    assert tyro.cli(Linf, args=[]).eps == 8 / 255


def test_wrong_shapes_are_caught_in_tests() -> None:
    """The import hook of conftest.py is at work: without it, this would broadcast."""
    with pytest.raises(TypeCheckError):
        Linf().project(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
