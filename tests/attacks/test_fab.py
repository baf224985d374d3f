"""The projection onto a hyperplane inside the box, against general solvers."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from regmix.attacks import Fab, Screened
from regmix.attacks.plane import to_plane
from regmix.threats import L1, L2, Linf


def problem(seed: int, size: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(1, 1, 1, size, generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    w = torch.randn(1, 1, 1, size, generator=generator, dtype=torch.float64)
    if seed % 3 == 0:
        w[..., 0] = 0
    gap = torch.randn(1, generator=generator, dtype=torch.float64)
    return x, w, gap


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_linf_is_the_solution_of_the_linear_program(seed: int) -> None:
    """min s such that w d = gap, |d_i| <= s, 0 <= x + d <= 1."""
    x, w, gap = problem(seed)
    d = to_plane(x, w, gap, Linf())
    n = x.numel()
    flat_x, flat_w = x.flatten().tolist(), w.flatten().tolist()
    above = [[1.0 if i == j else 0.0 for j in range(n)] + [-1.0] for i in range(n)]
    below = [[-1.0 if i == j else 0.0 for j in range(n)] + [-1.0] for i in range(n)]
    solved = linprog(
        [0.0] * n + [1.0], A_ub=above + below, b_ub=[0.0] * (2 * n), A_eq=[[*flat_w, 0.0]], b_eq=[gap.item()],
        bounds=[(-v, 1 - v) for v in flat_x] + [(0, None)],
    )  # fmt: skip
    check_inside(x, d)
    if solved.success:
        assert (w * d).sum().item() == pytest.approx(gap.item(), abs=1e-8)
        assert d.abs().max().item() == pytest.approx(solved.fun, abs=1e-7)
    else:
        check_farthest(x, w, gap, d)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_l1_is_the_solution_of_the_linear_program(seed: int) -> None:
    """min sum (u + v) such that w (u - v) = gap, 0 <= u <= 1 - x, 0 <= v <= x."""
    x, w, gap = problem(seed)
    d = to_plane(x, w, gap, L1())
    flat_x, flat_w = x.flatten().tolist(), w.flatten().tolist()
    solved = linprog(
        [1.0] * (2 * x.numel()), A_eq=[[*flat_w, *(-value for value in flat_w)]], b_eq=[gap.item()],
        bounds=[(0, 1 - value) for value in flat_x] + [(0, value) for value in flat_x],
    )  # fmt: skip
    check_inside(x, d)
    if solved.success:
        assert (w * d).sum().item() == pytest.approx(gap.item(), abs=1e-8)
        assert d.abs().sum().item() == pytest.approx(solved.fun, abs=1e-7)
    else:
        check_farthest(x, w, gap, d)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_l2_is_the_solution_of_the_quadratic_program(seed: int) -> None:
    x, w, gap = problem(seed)
    d = to_plane(x, w, gap, L2())
    check_inside(x, d)
    flat = w.flatten().numpy()
    reachable = (w.abs() * torch.where(w * gap.sign() > 0, 1 - x, x)).sum()
    if reachable < gap.abs() * (1 + 1e-6):
        if reachable < gap.abs() * (1 - 1e-6):
            check_farthest(x, w, gap, d)
        return
    assert (w * d).sum().item() == pytest.approx(gap.item(), abs=1e-8)
    solved = minimize(
        lambda v: (v**2).sum(), d.flatten().numpy() * 0.5, jac=lambda v: 2 * v,
        bounds=[(-v, 1 - v) for v in x.flatten().tolist()],
        constraints={"type": "eq", "fun": lambda v: v @ flat - gap.item(), "jac": lambda v: flat},
        method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert d.square().sum().item() <= solved.fun * (1 + 1e-6) + 1e-9


def check_inside(x: torch.Tensor, d: torch.Tensor) -> None:
    assert (x + d).min() >= -1e-12
    assert (x + d).max() <= 1 + 1e-12


def check_farthest(x: torch.Tensor, w: torch.Tensor, gap: torch.Tensor, d: torch.Tensor) -> None:
    """Out of reach: every element that matters goes to its border."""
    towards = w * gap.sign()
    assert torch.allclose((x + d)[towards > 0], torch.ones_like(x)[towards > 0], rtol=0, atol=1e-15)
    torch.testing.assert_close((x + d)[towards < 0], torch.zeros_like(x)[towards < 0], rtol=0, atol=1e-12)


def test_rows_do_not_touch_each_other() -> None:
    parts = [problem(seed) for seed in range(12)]
    x, w, gap = (torch.cat([part[i] for part in parts]) for i in range(3))
    for threat in (Linf(), L2(), L1()):
        together = to_plane(x, w, gap, threat)
        for row, part in enumerate(parts):
            torch.testing.assert_close(together[row : row + 1], to_plane(*part, threat), rtol=1e-9, atol=1e-12)


def test_a_row_without_a_gradient_stays() -> None:
    x, w, gap = problem(1)
    for threat in (Linf(), L2(), L1()):
        assert to_plane(x, torch.zeros_like(w), gap, threat).abs().max() == 0


def test_where_only_the_rough_model_crosses_an_exact_walk_follows() -> None:
    """The rough boundary lies at 0.5 eps, the model's own at 0.8: a walk on the rough one alone never gets there."""
    eps, x, y = 0.1, torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.long)

    def with_boundary_at(distance: float) -> Callable[[torch.Tensor], torch.Tensor]:
        def model(images: torch.Tensor) -> torch.Tensor:
            lead = distance - (images - 0.5).mean((1, 2, 3))
            return torch.stack([lead, -lead], 1)

        return model

    rough, exact = with_boundary_at(0.5 * eps), with_boundary_at(0.8 * eps)
    delta = Fab(targets=1, steps=20)(Screened(rough, exact, slack=1.0), x, y, Linf(eps))
    assert delta.abs().max() <= eps
    assert (exact(x + delta).argmax(1) == 1).all()
