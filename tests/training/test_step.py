"""One training step: the labels that a method sees, and what a wrapper sees of it."""

from collections.abc import Iterator

import pytest
import torch

from methods import reference
from methods.reference import SHAPE, Given, Plain
from regmix.methods import FgsmPgk, PgdAt, RegMix, Setup
from regmix.threats import Linf
from regmix.training import TrainStep
from regmix.types import Batch, Clock

LABELS = torch.tensor([0, 2, 3, 1, 2])
EPS = 0.1
CLOCK = Clock(epoch=0, epochs=1, step=0, steps=1)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """As Fabric does at --precision 64: what a step creates is float64, too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def corner() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return EPS * (torch.rand(5, *SHAPE, generator=generator) - 0.5).sign()


@pytest.mark.parametrize("mass", [1.0, 0.8, 0.5])
def test_labels_are_smoothed_for_the_loss_and_not_for_the_attack_of_pgd_at(mass: float) -> None:
    net, x = reference.tiny_net(), reference.images(5)
    plain, hard = Plain(net), reference.smoothed(LABELS, 1.0)
    delta, _ = reference.climb(
        plain, x, corner(), lambda z: reference.cross_entropy(z, hard), steps=2, step=EPS / 2, eps=EPS
    )
    expected = reference.cross_entropy(plain(x + delta), reference.smoothed(LABELS, mass)).mean()
    method = PgdAt(steps=2, step_size=0.5, start="corner")
    step = TrainStep(net, method, Given(Linf(eps=EPS), corner=corner()), 4, mass)
    losses = step(Batch(x, LABELS, torch.arange(5)), None, CLOCK)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10


@pytest.mark.parametrize("inner", ["cross_entropy", "smoothed"])
@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_regmix_attacks_the_smoothed_label_only_where_told(mass: float, inner: str) -> None:
    net, x, target = reference.tiny_net(3), reference.images(5), reference.smoothed(LABELS, mass)
    plain = Plain(net)
    attacked = target if inner == "smoothed" else reference.smoothed(LABELS, 1.0)
    delta, initial = reference.climb(
        plain, x, corner(), lambda z: reference.cross_entropy(z, attacked), steps=2, step=EPS, eps=EPS
    )
    final, clean = plain(x + delta), plain(x)
    expected = reference.cross_entropy(final, target).mean()
    expected = expected + 5 * reference.kl(final, initial).mean() + 2 * reference.kl(initial, final).mean()
    expected = expected + 2 * reference.kl(clean, final).mean()
    method = RegMix(alpha=5, beta=2, gamma=2, reduction="example", inner=inner)
    step = TrainStep(net, method, Given(Linf(eps=EPS), corner=corner()), 4, mass)
    losses = step(Batch(x, LABELS, torch.arange(5)), None, CLOCK)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10


@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_fgsm_pgk_attacks_the_smoothed_label(mass: float) -> None:
    net, x, target = reference.tiny_net(), reference.images(5), reference.smoothed(LABELS, mass)
    plain = Plain(net)
    delta, _ = reference.climb(
        plain, x, corner(), lambda z: reference.cross_entropy(z, target), steps=1, step=EPS, eps=EPS
    )
    expected = reference.cross_entropy(plain(x + delta), target).mean()
    method = FgsmPgk()
    memory = method.memory(Setup(5, 4, SHAPE, Linf(eps=EPS)))
    step = TrainStep(net, method, Given(Linf(eps=EPS), corner=corner()), 4, mass)
    losses = step(Batch(x, LABELS, torch.arange(5)), memory, CLOCK)
    assert losses.terms["classify"].item() == pytest.approx(expected.item(), rel=1e-10)


def test_the_step_has_the_models_parameters_and_nothing_else() -> None:
    """What a wrapper synchronises and a checkpoint holds is the model; per-sample memory is an argument."""
    net = reference.tiny_net()
    step = TrainStep(net, FgsmPgk(), Linf(), 4, 0.5)
    assert [id(p) for p in step.parameters()] == [id(p) for p in net.parameters()]
    assert {name.removeprefix("model.") for name in step.state_dict()} == {*net.state_dict()}


@pytest.mark.parametrize("mixed", [False, True])
def test_random_labels_give_their_mass_to_the_true_class_and_the_rest_at_random(mixed: bool) -> None:
    x, mass, classes = reference.images(5), 0.6, 4
    labels = 0.7 * reference.smoothed(LABELS, 1.0) + 0.3 * reference.smoothed(LABELS.flip(0), 1.0) if mixed else LABELS
    batch = Batch(x, LABELS, torch.arange(5), soft=labels if mixed else None)
    step = TrainStep(reference.tiny_net(), RegMix(), Linf(EPS), classes, mass, label_rest="random")
    torch.manual_seed(3)
    soft = step._smoothed(batch)
    torch.manual_seed(3)
    shares = torch.rand(5, classes)

    def row(weights: list[float], label: int) -> torch.Tensor:
        rest = sum(w for c, w in enumerate(weights) if c != label)
        return torch.tensor([mass if c == label else (1 - mass) * w / rest for c, w in enumerate(weights)])

    expected = torch.stack(
        [
            sum(float(part) * row(shares[i].tolist(), c) for c, part in enumerate(labels[i])) if mixed
            else row(shares[i].tolist(), int(LABELS[i]))
            for i in range(5)
        ]
    )  # fmt: skip
    torch.testing.assert_close(soft, expected)
    torch.testing.assert_close(soft.sum(1), torch.ones(5))
    assert not torch.equal(step._smoothed(batch), soft), "drawn anew"


@pytest.mark.parametrize("ramp_of", ["all", "terms"])
def test_a_ramp_scales_the_terms_and_eps_only_if_told(ramp_of: str) -> None:
    net, same, clock = reference.tiny_net(), reference.tiny_net(), Clock(1, 4, 0, 2)
    batch = Batch(reference.images(5), LABELS, torch.arange(5))
    share = 3 / (0.5 * 8)  # the third of eight steps, of which the first half is the ramp
    step = TrainStep(net, RegMix(), Linf(EPS), 4, 1.0, 0.5, ramp_of=ramp_of)
    torch.manual_seed(1)
    ramped = step(batch, None, clock)
    torch.manual_seed(1)
    whole = RegMix()(same, batch, Linf(EPS if ramp_of == "terms" else share * EPS), None, clock)
    assert ramped.terms["classify"] == whole.terms["classify"]
    for name in ("mutual_main", "mutual_aux", "generalise"):
        assert ramped.terms[name].item() == pytest.approx(share * whole.terms[name].item(), rel=1e-12)
