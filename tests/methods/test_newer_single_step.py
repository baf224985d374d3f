"""AAER and ELLE against their formulas, in float64."""

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import Elle, NAaer, RsAaer, Setup
from regmix.threats import Linf
from regmix.types import Batch, Clock, Losses

COUNT = 12
LABELS = torch.arange(COUNT) % CLASSES
EPS = 0.3


def a_batch(mass: float = 1.0) -> Batch:
    labels = LABELS if mass == 1 else reference.smoothed(LABELS, mass)
    return Batch(reference.images(COUNT), labels, torch.arange(COUNT))


def per_example(z: Tensor, mass: float = 1.0) -> Tensor:
    return reference.cross_entropy(z, reference.smoothed(LABELS, mass))


def gradient_at(plain: Plain, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits and the gradient of the summed cross-entropy at x, from one forward pass."""
    at = x.clone().requires_grad_()
    z = plain(at)
    (g,) = torch.autograd.grad(per_example(z).sum(), at, retain_graph=True)
    return z, g


def clipped(x: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(x), torch.stack([torch.zeros_like(x), x]).amax(0)]).amin(0)


def assert_agrees(losses: Losses, terms: dict[str, Tensor], net: torch.nn.Module, plain: Plain) -> None:
    losses.total.backward()
    assert [*losses.terms] == [*terms]
    for name, expected in terms.items():
        assert losses.terms[name].item() == pytest.approx(expected.item(), rel=1e-9)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(terms.values()))) < 1e-9
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards


@pytest.mark.parametrize("kind", [NAaer, RsAaer])
@pytest.mark.parametrize("drop_gradient", ["both", "none"])
@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_aaer_penalises_examples_whose_loss_the_step_has_lowered(kind, drop_gradient: str, mass: float) -> None:
    net, x = reference.tiny_net(), reference.images(COUNT)
    with torch.no_grad():
        net[2].weight.mul_(20)  # so curved that some losses fall
    draw = Linf(EPS).uniform(x, torch.Generator().manual_seed(3))
    method = kind(drop_gradient=drop_gradient)
    plain = Plain(net)
    start = clipped(x + method.noise * draw)
    before, g = gradient_at(plain, start)
    moved = start + method.step_size * EPS * torch.sign(g)
    if method.project:
        moved = x + torch.stack(
            [torch.full_like(x, EPS), torch.stack([torch.full_like(x, -EPS), moved - x]).amax(0)]
        ).amin(0)
    after = plain(clipped(moved))
    old, new = per_example(before), per_example(after)
    abnormal = [i for i in range(COUNT) if old[i] > new[i]]
    normal = [i for i in range(COUNT) if i not in abnormal]
    assert abnormal
    assert normal
    drop = sum(old[i] - new[i] for i in abnormal) / len(abnormal)
    if drop_gradient == "none":
        drop = drop.detach()
    change = ((after - before.detach()) ** 2).sum(1)
    excess = sum(change[i] for i in abnormal) / len(abnormal) - (sum(change[i] for i in normal) / len(normal)).detach()
    excess = excess if excess > 0 else torch.zeros(())
    penalty = len(abnormal) / COUNT * (method.drop_weight * drop + method.variation_weight * excess)
    terms = {"classify": per_example(after, mass).sum() / COUNT, "abnormal": penalty}
    losses = method(net, a_batch(mass), Given(Linf(EPS), uniform=draw))
    assert losses.stats["abnormal_share"].item() == pytest.approx(len(abnormal) / COUNT)
    assert_agrees(losses, terms, net, plain)


def test_aaer_is_n_fgsm_where_every_loss_rises() -> None:
    net, x = reference.tiny_net(), reference.images(COUNT)
    losses = NAaer(step_size=1e-3, noise=0.0)(net, a_batch(), Given(Linf(EPS), uniform=torch.zeros_like(x)))
    assert losses.stats["abnormal_share"] == 0
    assert losses.terms["abnormal"] == 0


def the_draws(x: Tensor, seed: int) -> list[Tensor]:
    """What ELLE draws, in its order."""
    torch.manual_seed(seed)
    return [*(Linf(EPS).uniform(x) for _ in range(3)), torch.rand(COUNT, dtype=torch.float64)]


@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_elle_penalises_the_error_of_linear_interpolation(mass: float) -> None:
    net, x = reference.tiny_net(), reference.images(COUNT)
    plain = Plain(net)
    start, u, v, a = the_draws(x, 5)
    _, g = gradient_at(plain, clipped(x + start))
    after = plain(clipped(clipped(x + start) + 1.25 * EPS * torch.sign(g)))
    one, other = clipped(x + u), clipped(x + v)
    a4 = a.reshape(-1, 1, 1, 1)
    z = plain(torch.cat([one, other, (1 - a4) * one + a4 * other]))
    la, lb, lc = (per_example(z[i * COUNT : (i + 1) * COUNT]) for i in range(3))
    error = ((lc - (1 - a) * la - a * lb) ** 2).sum() / COUNT
    terms = {"classify": per_example(after, mass).sum() / COUNT, "linear": 700 * error}
    torch.manual_seed(5)
    assert_agrees(Elle(lam=700, noise=1.0, step_size=1.25)(net, a_batch(mass), Linf(EPS)), terms, net, plain)


def test_elle_steps_from_the_image_unless_it_is_told_otherwise() -> None:
    net, x = reference.tiny_net(), reference.images(COUNT)
    plain = Plain(net)
    _, g = gradient_at(plain, x)
    expected = per_example(plain(clipped(x + EPS * torch.sign(g)))).sum() / COUNT
    assert Elle()(net, a_batch(), Linf(EPS)).terms["classify"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_adaptive_weight_jumps_when_an_error_is_far_above_those_before_it() -> None:
    method = Elle(lam=4000, schedule="adaptive", decay=0.9)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu"))
    assert memory is not None
    errors = [0.10, 0.14, 0.11, 0.12, 0.90, 0.11, 0.12]
    history: list[float] = []
    weight = 0.0
    for error in errors:
        found = method._weight(a_batch(), memory, torch.tensor(error, dtype=torch.float64))
        assert found.item() == pytest.approx(weight, rel=1e-6)
        known = torch.tensor(history, dtype=torch.float64)
        far = len(history) > 2 and error > known.mean() + 2 * known.std(correction=0)
        weight = 4000.0 if far else 0.9 * weight
        history.append(error)
    assert weight == pytest.approx(4000 * 0.9**2)  # after the jump at 0.90


def test_the_adaptive_weight_is_part_of_the_saved_state() -> None:
    method = Elle(schedule="adaptive", sensitivity=0.0)
    setup = Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu")
    one, other = method.memory(setup), method.memory(setup)
    assert one is not None
    assert other is not None
    net = reference.tiny_net()
    for seed in range(9):
        torch.manual_seed(seed)
        method(net, a_batch(), Linf(EPS), one, Clock(0, 1, seed, 19))
    other.load_state_dict(one.state_dict())
    losses = []
    for memory in (one, other):
        torch.manual_seed(9)
        losses.append(method(reference.tiny_net(), a_batch(), Linf(EPS), memory, Clock(0, 1, 9, 19)))
    assert losses[0].terms["linear"] == losses[1].terms["linear"] > 0
