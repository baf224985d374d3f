"""Adversarial images in whole grey levels stay inside the threat set."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regmix.evaluation import to_uint8
from regmix.threats import L2, Linf

THREATS = [Linf(8 / 255), Linf(0.03), Linf(1 / 255), Linf(0.5 / 255), Linf(0.03137), L2(0.5), L2(128 / 255), L2(0.01)]


def a_case(seed: int, threat: Linf | L2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (3, 3, 5, 5), generator=generator).float() / 255
    wild = threat.corner(x, generator) if seed % 2 else threat.uniform(x, generator)
    return x, (x + threat.project(wild, x)).clamp(0, 1)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_it_stays_within_eps_in_exact_arithmetic(threat, seed: int) -> None:
    x, adversarial = a_case(seed, threat)
    levels = (255 * x).round().long()
    moved = to_uint8(x, adversarial, threat).long() - levels
    if isinstance(threat, Linf):
        assert moved.abs().max() <= int(255 * threat.eps + 1e-6)
    else:
        assert (moved.flatten(1).double() / 255).norm(dim=1).max() <= threat.eps * (1 + 1e-6)


@pytest.mark.parametrize("threat", [Linf(8 / 255), L2(0.5)], ids=str)
def test_it_moves_no_pixel_by_more_than_a_level(threat) -> None:
    for seed in range(20):
        x, adversarial = a_case(seed, threat)
        assert (to_uint8(x, adversarial, threat).float() - 255 * adversarial).abs().max() <= 1 + 1e-3


def test_corners_at_a_whole_number_of_levels_are_kept_exactly() -> None:
    x, adversarial = a_case(1, Linf(8 / 255))
    torch.testing.assert_close(to_uint8(x, adversarial, Linf(8 / 255)).float() / 255, adversarial, rtol=0, atol=1e-6)
