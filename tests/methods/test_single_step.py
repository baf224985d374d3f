"""FGSM-AT, N-FGSM, ZeroGrad, GradAlign and Free-AT against their formulas, in float64."""

import math

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import FgsmAt, FgsmRs, FreeAt, GradAlign, NFgsm, Setup, ZeroGrad
from regmix.threats import L2, Linf
from regmix.types import Batch, Losses

LABELS = torch.tensor([0, 2, 3, 1, 2])
RADIUS = {"linf": 0.1, "l2": 0.4}
THREAT = {"linf": Linf, "l2": L2}

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])
both_masses = pytest.mark.parametrize("mass", [1.0, 0.6])


def a_start(norm: str, seed: int = 7) -> Tensor:
    """An unclipped draw from the ball; a few pixels of x + start leave [0, 1]."""
    return THREAT[norm](eps=RADIUS[norm]).uniform(reference.images(5), torch.Generator().manual_seed(seed))


def a_batch(mass: float = 1.0) -> Batch:
    labels = LABELS if mass == 1 else reference.smoothed(LABELS, mass)
    return Batch(reference.images(5), labels, torch.arange(5))


def hard_loss(z: Tensor) -> Tensor:
    return reference.cross_entropy(z, reference.smoothed(LABELS, 1.0))


def gradient_at(plain: Plain, x: Tensor) -> Tensor:
    at = x.clone().requires_grad_()
    return reference.input_gradient(plain(at), at, hard_loss)


def assert_agrees(losses: Losses, terms: dict[str, Tensor], net: torch.nn.Module, plain: Plain) -> None:
    losses.total.backward()
    assert [*losses.terms] == [*terms]
    for name, expected in terms.items():
        assert losses.terms[name].item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(terms.values()))) < 1e-10
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards


def classify(plain: Plain, x: Tensor, mass: float) -> Tensor:
    return reference.cross_entropy(plain(x), reference.smoothed(LABELS, mass)).sum() / 5


@both_norms
@both_masses
def test_fgsm_at_is_one_step_of_eps_from_the_clean_image(mass: float, norm: str) -> None:
    net, x, eps = reference.tiny_net(), reference.images(5), RADIUS[norm]
    plain = Plain(net)
    g = gradient_at(plain, x)
    delta = reference.project(eps * reference.direction(g, norm), x, eps, norm)
    terms = {"classify": classify(plain, x + delta, mass)}
    assert_agrees(FgsmAt()(net, a_batch(mass), THREAT[norm](eps=eps)), terms, net, plain)


@both_norms
@both_masses
@pytest.mark.parametrize(("noise", "step_size"), [(2.0, 1.0), (1.0, 1.25), (0.0, 1.0)])
def test_n_fgsm_leaves_the_ball_but_not_the_range(noise: float, step_size: float, mass: float, norm: str) -> None:
    net, x, eps, start = reference.tiny_net(), reference.images(5), RADIUS[norm], a_start(norm)
    plain = Plain(net)
    clip = torch.stack([torch.zeros_like(x), x + noise * start]).amax(0)
    eta = torch.stack([torch.ones_like(x), clip]).amin(0) - x
    g = gradient_at(plain, x + eta)
    moved = x + eta + step_size * eps * reference.direction(g, norm)
    adversarial = torch.stack([torch.ones_like(x), torch.stack([torch.zeros_like(x), moved]).amax(0)]).amin(0)
    if noise == 2 and norm == "linf":
        assert (adversarial - x).abs().max() > eps * 1.5
    terms = {"classify": classify(plain, adversarial, mass)}
    method = NFgsm(noise=noise, step_size=step_size)
    assert_agrees(method(net, a_batch(mass), Given(THREAT[norm](eps=eps), uniform=start)), terms, net, plain)


@both_norms
@both_masses
@pytest.mark.parametrize("q", [0.0, 0.35, 0.4, 0.99])
def test_zero_grad_follows_only_the_larger_elements(q: float, mass: float, norm: str) -> None:
    net, x, eps, start = reference.tiny_net(), reference.images(5), RADIUS[norm], a_start(norm)
    plain = Plain(net)
    start = reference.project(start, x, eps, norm)
    g = gradient_at(plain, x + start)
    kept = g.clone()
    for one in kept:
        values = sorted(one.abs().flatten().tolist())
        place = q * (len(values) - 1)
        low, high = math.floor(place), math.ceil(place)
        bound = values[low] + (place - low) * (values[high] - values[low])
        one[one.abs() < bound] = 0
    assert (kept == 0).flatten(1).sum(1).tolist() == [math.ceil(q * 17)] * 5
    delta = reference.project(start + 2 * eps * reference.direction(kept, norm), x, eps, norm)
    terms = {"classify": classify(plain, x + delta, mass)}
    method = ZeroGrad(q=q)
    assert_agrees(method(net, a_batch(mass), Given(THREAT[norm](eps=eps), uniform=a_start(norm))), terms, net, plain)


def test_zero_grad_without_a_quantile_is_fgsm_rs() -> None:
    """But for the length of the step."""
    results = []
    for method in (ZeroGrad(q=0.0, step_size=1.25), FgsmRs()):
        torch.manual_seed(0)
        results.append(method(reference.tiny_net(), a_batch(), Linf(eps=0.1)).total)
    assert torch.equal(*results)


@pytest.mark.slow
def test_zero_grad_takes_images_too_large_for_torchs_quantile() -> None:
    """More than 16 million elements in a batch."""
    from regmix.methods.zero_grad import _quantile

    values = torch.rand(2, 3, 1700, 1700)
    expected = torch.stack([torch.sort(one.flatten()).values[int(0.25 * (one.numel() - 1))] for one in values])
    torch.testing.assert_close(_quantile(values, 0.25).flatten(), expected, rtol=1e-5, atol=1e-6)


@both_norms
@both_masses
def test_grad_align_penalises_gradients_that_turn(mass: float, norm: str) -> None:
    net, x, eps = reference.tiny_net(), reference.images(5), RADIUS[norm]
    plain = Plain(net)
    here = gradient_at(plain, x)
    delta = reference.project(eps * reference.direction(here, norm), x, eps, norm)
    terms = {"classify": classify(plain, x + delta, mass)}
    at = (x + reference.project(a_start(norm), x, eps, norm)).requires_grad_()
    (there,) = torch.autograd.grad(hard_loss(plain(at)).sum(), at, create_graph=True)
    cosines = [(a * b).sum() / ((a * a).sum() ** 0.5 * (b * b).sum() ** 0.5) for a, b in zip(here, there, strict=True)]
    terms["align"] = 0.2 * (1 - sum(cosines) / 5)
    losses = GradAlign()(net, a_batch(mass), Given(THREAT[norm](eps=eps), uniform=a_start(norm)))
    assert losses.stats["align"].item() == pytest.approx(terms["align"].item() / 0.2, rel=1e-10)
    assert_agrees(losses, terms, net, plain)


def test_grad_align_leaves_out_examples_without_a_gradient() -> None:
    from regmix.methods.grad_align import _mean_cosine

    one = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [1.0, 0.0]])
    other = torch.tensor([[4.0, 3.0], [1.0, 1.0], [0.0, 1e-30], [0.0, 0.0]], requires_grad=True)
    value = _mean_cosine(one, other)
    assert value.item() == pytest.approx((0.96 + 0) / 2)
    value.backward()
    assert other.grad.isfinite().all()
    assert torch.equal(other.grad[[1, 3]], torch.zeros(2, 2))


def test_grad_align_without_weight_is_fgsm_at() -> None:
    totals = [m(reference.tiny_net(), a_batch(), Linf(eps=0.1)).total for m in (GradAlign(lam=0.0), FgsmAt())]
    assert torch.equal(*totals)


@both_norms
@both_masses
def test_free_at_learns_and_attacks_from_the_same_point(mass: float, norm: str) -> None:
    net, eps = reference.tiny_net(), RADIUS[norm]
    plain, threat, method = Plain(net), THREAT[norm](eps=RADIUS[norm]), FreeAt()
    memory = method.memory(Setup(5, CLASSES, SHAPE, threat))
    delta, target = torch.zeros(5, *SHAPE, dtype=torch.float64), reference.smoothed(LABELS, mass)
    # The same batch twice, then another one, which begins where the first ended.
    for seed in (0, 0, 1):
        x = reference.images(5, seed=seed)
        at = reference.project(delta, x, eps, norm).requires_grad_()
        z = plain(x + at)
        loss = reference.cross_entropy(z, target).sum() / 5
        g = reference.input_gradient(z, at, lambda z: reference.cross_entropy(z, target))
        delta = reference.project(at.detach() + eps * reference.direction(g, norm), x, eps, norm)

        net.zero_grad()
        losses = method(net, a_batch(mass)._replace(x=x), threat, memory)
        assert_agrees(losses, {"classify": loss}, net, plain)
        assert reference.relative_error(memory["delta"].gather(), delta) < 1e-10
