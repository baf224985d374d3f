"""TRADES, MART, GAT and NuAT against their formulas, in float64."""

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import Given, Plain
from regmix.methods import Gat, Mart, Mutual, NuAt, Standard, Trades
from regmix.threats import L2, Linf
from regmix.types import Batch, Clock, Losses

LABELS = torch.tensor([0, 2, 3, 1, 2])
RADIUS = {"linf": 0.1, "l2": 0.4}
THREAT = {"linf": Linf, "l2": L2}

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])
both_masses = pytest.mark.parametrize("mass", [1.0, 0.6])


def a_batch(mass: float = 1.0) -> Batch:
    labels = LABELS if mass == 1 else reference.smoothed(LABELS, mass)
    return Batch(reference.images(5), labels, torch.arange(5))


def hard_loss(z: Tensor) -> Tensor:
    return reference.cross_entropy(z, reference.smoothed(LABELS, 1.0))


def gaussian_start(seed: int = 3) -> Tensor:
    torch.manual_seed(seed)
    return 0.001 * torch.randn_like(reference.images(5))


def assert_agrees(losses: Losses, terms: dict[str, Tensor], net: nn.Module, plain: Plain) -> None:
    losses.total.backward()
    assert [*losses.terms] == [*terms]
    for name, expected in terms.items():
        assert losses.terms[name].item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(terms.values()))) < 1e-10
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards


@both_norms
@both_masses
@pytest.mark.parametrize("bn", ["train", "eval"])
@pytest.mark.parametrize("mutual", [False, True])
def test_trades(mutual: bool, bn: str, mass: float, norm: str) -> None:
    net, x, eps = reference.tiny_net(), reference.images(5), RADIUS[norm]
    plain, train = Plain(net), bn == "train"
    start = gaussian_start()
    natural = plain(x, train).detach()
    delta, first = reference.climb(
        plain, x, start, lambda z: reference.kl(natural, z), steps=3, step=0.25 * eps, eps=eps, norm=norm,
        batch_statistics=train,
    )  # fmt: skip
    if mutual and not train:
        first = plain(x + start)
    clean, adversarial = plain(x), plain(x + delta)
    terms = {
        "classify": reference.cross_entropy(clean, reference.smoothed(LABELS, mass)).sum() / 5,
        "diverge": 6 * reference.kl(clean, adversarial).sum() / 5,
    }
    if mutual:
        terms["mutual_main"] = 7 * reference.kl(adversarial, first).sum() / (5 * reference.CLASSES)
        terms["mutual_aux"] = 2 * reference.kl(first, adversarial).sum() / (5 * reference.CLASSES)
        terms["generalise"] = 3 * reference.kl(clean, adversarial).sum() / (5 * reference.CLASSES)
    method = Trades(steps=3, attack_batchnorm=bn, mutual=Mutual(alpha=7, beta=2, gamma=3) if mutual else Mutual())
    torch.manual_seed(3)
    assert_agrees(method(net, a_batch(mass), THREAT[norm](eps=eps)), terms, net, plain)


def test_the_attack_of_trades_makes_the_outputs_diverge() -> None:
    net = reference.tiny_net()
    divergences = []
    for steps in (1, 10):
        torch.manual_seed(3)
        divergences.append(Trades(steps=steps)(net, a_batch(), Linf(eps=0.1)).stats["diverge"].item())
    assert divergences[1] > 2 * divergences[0]


def test_trades_without_weight_is_standard_training() -> None:
    one = Trades(lam=0.0)(reference.tiny_net(), a_batch(), Linf(eps=0.1)).total
    assert torch.equal(one, Standard()(reference.tiny_net(), a_batch(), Linf(eps=0.1)).total)


@both_norms
@both_masses
@pytest.mark.parametrize("bn", ["train", "eval"])
def test_mart(bn: str, mass: float, norm: str) -> None:
    net, x, eps = reference.tiny_net(), reference.images(5), RADIUS[norm]
    plain = Plain(net)
    delta, _ = reference.climb(
        plain, x, gaussian_start(), hard_loss, steps=3, step=0.25 * eps, eps=eps, norm=norm,
        batch_statistics=bn == "train",
    )  # fmt: skip
    clean, adversarial = plain(x), plain(x + delta)
    p, q = reference.softmax(clean), reference.softmax(adversarial)
    rows = range(5)
    rivals = [
        max((k for k in range(reference.CLASSES) if k != LABELS[i]), key=lambda k: q.detach()[i, k]) for i in rows
    ]
    terms = {
        "classify": reference.cross_entropy(adversarial, reference.smoothed(LABELS, mass)).sum() / 5,
        "boost": sum(-torch.log(1 - q[i, rivals[i]]) for i in rows) / 5,
        "diverge": 5 * sum(reference.kl(clean, adversarial)[i] * (1 - p[i, LABELS[i]]) for i in rows) / 5,
    }
    torch.manual_seed(3)
    losses = Mart(steps=3, attack_batchnorm=bn)(net, a_batch(mass), THREAT[norm](eps=eps))
    assert_agrees(losses, terms, net, plain)


def test_marts_logarithm_is_exact_where_the_rival_is_certain() -> None:
    """-log(1 - q) with q = 1 - e^-40, which float64 cannot tell from 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 40.0, -100.0]))
    batch = Batch(reference.images(2), torch.tensor([0, 2]), torch.arange(2))
    losses = Mart(steps=1)(model, batch, Linf(eps=0.1))
    assert losses.terms["boost"].item() == pytest.approx(40, rel=1e-12)


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    return ((reference.softmax(one) - reference.softmax(other)) ** 2).sum() / 5


def nuclear_norm(one: Tensor, other: Tensor) -> Tensor:
    """The sum of the square roots of the eigenvalues of A^T A."""
    a = one - other
    return torch.linalg.eigvalsh(a.T @ a).clamp_min(0).sqrt().sum() / 5


GUIDED = [
    (Gat(), squared_distance, [(0, 10.0), (85, 10.0), (86, 40.0), (99, 40.0)]),
    (NuAt(), nuclear_norm, [(1, 4 / 100), (50, 2.0), (90, 3.6), (99, 3.96)]),
    (NuAt(lam=4.5, hold=10), nuclear_norm, [(1, 4.5 / 90), (45, 2.25), (90, 4.5), (99, 4.5)]),
]


@both_norms
@both_masses
@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["gat", "nu_at", "nu_at, held"])
def test_guided_attacks(which: int, step: int, mass: float, norm: str) -> None:
    method, distance, schedule = GUIDED[which]
    eps, x, threat = RADIUS[norm], reference.images(5), THREAT[norm](eps=RADIUS[norm])
    corner = threat.corner(x, torch.Generator().manual_seed(2))
    start = reference.project(corner / 2, x, eps, norm)
    for epoch, weight in schedule:
        net = reference.tiny_net()
        plain = Plain(net)
        # In every other step the attack climbs the whole loss.
        guide = plain(x).detach() if step % 2 else None

        def objective(z: Tensor, guide: Tensor | None = guide, weight: float = weight) -> Tensor:
            loss = hard_loss(z).sum() / 5
            return loss if guide is None else loss + weight * distance(guide, z)

        delta, _ = reference.climb(
            plain, x, start, objective, steps=1, step=eps, eps=eps, norm=norm, batch_statistics=False
        )
        adversarial, clean = plain(x + delta), plain(x)
        terms = {
            "classify": reference.cross_entropy(clean, reference.smoothed(LABELS, mass)).sum() / 5,
            "guide": weight * distance(clean, adversarial),
        }
        losses = method(net, a_batch(mass), Given(threat, corner=corner), clock=Clock(epoch, 100, step, 2))
        assert_agrees(losses, terms, net, plain)


def test_nu_at_begins_as_standard_training() -> None:
    one = NuAt()(reference.tiny_net(), a_batch(), Linf(eps=0.1), clock=Clock(0, 30, 0, 2))
    assert one.terms["guide"] == 0
    assert one.terms["classify"] > 0
