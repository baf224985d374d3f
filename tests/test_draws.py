"""The numbers of an image are SplitMix64's, have the distributions that they claim, and belong to the image alone."""

import math

import pytest
import torch
from torch import Generator

from regmix.draws import PerImage, exponential, normal, restarted, uniform
from regmix.threats import L1, L2, Linf


def splitmix64(state: int, count: int) -> list[int]:
    """The public definition, on Python's integers."""
    out = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        out.append(z ^ (z >> 31))
    return out


def test_the_reference_is_the_public_generator() -> None:
    """The first outputs for the seed 1234567, as published with the generator."""
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_numbers_are_those_of_the_public_generator() -> None:
    draws = PerImage(torch.rand(5, 3, 4, 4), 7)
    keys = [key % 2**64 for key in draws.keys.tolist()]
    found = torch.cat([draws.numbers(3), draws.numbers(1), draws.numbers(9)], 1)
    for key, row in zip(keys, found.double().tolist(), strict=True):
        assert row == [(value >> 40) / 2**24 for value in splitmix64(key, 13)]


def test_they_belong_to_the_image_alone() -> None:
    x = torch.rand(6, 3, 5, 4)
    every = PerImage(x, 3).numbers(10)
    order = torch.tensor([4, 0, 2])
    torch.testing.assert_close(PerImage(x[order], 3).numbers(10), every[order], rtol=0, atol=0)
    draws = PerImage(x.double().contiguous(memory_format=torch.channels_last), 3)
    parts = [draws.numbers(4)[order.sort().values]]
    draws.keys = draws.keys[order.sort().values]
    parts.append(draws.numbers(6))
    torch.testing.assert_close(torch.cat(parts, 1), every[order.sort().values], rtol=0, atol=0)


def test_other_pixels_seeds_and_uses_draw_other_numbers() -> None:
    x = torch.randint(256, (1, 1, 4, 4)) / 255
    swapped, nearly = x.flip(3), x.clone()
    nearly[0, 0, 0, 0] = (nearly[0, 0, 0, 0] * 255 + 1) % 256 / 255
    aims = torch.tensor([0])
    drawn = [
        PerImage(image, seed, also).numbers(8)
        for image, seed, also in [(x, 0, None), (swapped, 0, None), (nearly, 0, None), (x, 1, None), (x, 0, aims),
                                  (x, 0, aims + 1)]
    ]  # fmt: skip
    for one in range(len(drawn)):
        for other in range(one):
            assert not (drawn[one] == drawn[other]).any()


def test_black_images_of_two_sizes_and_neighbouring_seeds_are_not_correlated() -> None:
    x = torch.zeros(1, 3, 32, 32)
    rows = torch.cat(
        [PerImage(x, seed).numbers(20_000) for seed in range(4)] + [PerImage(x[..., 1:], 0).numbers(20_000)]
    )
    off = torch.corrcoef(rows.double()) - torch.eye(5, dtype=torch.double)
    assert off.abs().max() < 5 / math.sqrt(20_000)


@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (lambda like, source: uniform(like, source, -1, 1), torch.distributions.Uniform(-1, 1)),
        (normal, torch.distributions.Normal(0, 1)),
        (exponential, torch.distributions.Exponential(1)),
    ],
)
def test_distributions(draw, distribution: torch.distributions.Distribution) -> None:
    """Kolmogorov and Smirnov's distance over 400,000 numbers, at a probability of one in a million."""
    like = torch.empty(4, 100_000, 1, 1)
    drawn = draw(like, PerImage(torch.rand(4, 3, 4, 4, generator=Generator().manual_seed(0)), 0)).flatten()
    at = distribution.cdf(drawn.sort().values.double())
    steps = torch.arange(len(at), dtype=torch.double) / len(at)
    assert max(float((at - steps).max()), float((steps + 1 / len(at) - at).max())) < 2.7 / math.sqrt(len(at))


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.5), L1(12)])
def test_threats_draw_for_each_image(threat) -> None:
    x = torch.rand(5, 3, 6, 6)
    for name in ("uniform", "corner"):
        every = getattr(threat, name)(x, PerImage(x, 1))
        last = getattr(threat, name)(x[4:], PerImage(x[4:], 1))
        torch.testing.assert_close(last, every[4:], rtol=1e-5, atol=1e-7)
        assert (threat.norm(every) <= threat.eps * (1 + 1e-5)).all()


def test_layout_and_type_are_kept() -> None:
    like = torch.rand(2, 3, 4, 4, dtype=torch.double).contiguous(memory_format=torch.channels_last)
    for draw in (uniform, normal, exponential):
        drawn = draw(like, PerImage(like, 0))
        assert drawn.dtype == torch.double
        assert drawn.is_contiguous(memory_format=torch.channels_last)
        in_float32 = draw(like.float().contiguous(), PerImage(like, 0))
        torch.testing.assert_close(drawn.float(), in_float32, rtol=1e-5, atol=1e-6)


def test_narrow_types_have_no_infinities() -> None:
    """They round the largest number below 1 to 1."""
    x = torch.rand(20, 3, 64, 64)
    for narrow in (torch.float16, torch.bfloat16):
        like = torch.empty(20, 3, 64, 64, dtype=narrow)
        for draw in (normal, exponential):
            assert draw(like, PerImage(x, 0)).isfinite().all()


def test_seeds_of_any_whole_number_and_further_starts() -> None:
    x = torch.rand(1, 3, 4, 4)
    seeds = [-1, 0, 5, 2**63, 2**64 - 1, *(restarted(seed, 1) for seed in (0, 1)), restarted(2**63 - 1, 4)]
    keys = [int(PerImage(x, seed).keys) for seed in seeds]
    assert keys[0] == keys[4], "modulo 2^64"
    assert len({*keys}) == len(keys) - 1
    assert restarted(7, 0) == 7
    rows = PerImage(x.repeat(2, 1, 1, 1), torch.tensor([5, 0]))
    assert rows.keys.tolist() == [keys[2], keys[1]]


def test_no_images_draw_no_numbers() -> None:
    x = torch.rand(0, 3, 4, 4)
    assert Linf(0.1).uniform(x, PerImage(x, 0)).shape == x.shape
