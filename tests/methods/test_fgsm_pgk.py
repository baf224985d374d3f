"""FGSM-PGK against its formula over several steps, memory included."""

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import FgsmPgk, Mutual, PgdAt, Setup
from regmix.methods.memory import Memory
from regmix.methods.per_image import PerImage
from regmix.threats import L2, Linf
from regmix.types import Batch, Clock, View

RADIUS = {"linf": 0.1, "l2": 0.7}
COUNT, PAD, LAM, MU = 7, 1, 5.6, 0.3
INDEX = torch.tensor([6, 0, 3, 4, 1])
LABELS = torch.tensor([0, 2, 3, 1, 2])


def a_view(seed: int) -> View:
    generator = torch.Generator().manual_seed(seed)
    top, left = torch.randint(2 * PAD + 1, (2, 5), generator=generator)
    return View(top, left, torch.rand(5, generator=generator) < 0.5)


def clock_of(epoch: int) -> Clock:
    return Clock(epoch, epochs=2, step=0, steps=1)


def exact_memory() -> Memory:
    """The memory without its rounding."""
    device = torch.device("cpu")
    return Memory(**{name: PerImage(COUNT, SHAPE, PAD, device, dtype=torch.float64) for name in ("delta", "momentum")})


def rounded(name: str, values: Tensor, eps: float, norm: str) -> Tensor:
    """int8 in 127 steps up to eps for the perturbation and float8 for the momentum under L-inf; else bfloat16."""
    if norm == "l2":
        return values.to(torch.bfloat16).double()
    if name == "delta":
        return torch.round(values / (eps / 127)).clamp(-127, 127) * (eps / 127)
    return values.to(torch.float8_e5m2).double()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("storage", "mutual"), [("exact", False), ("rounded", False), ("exact", True)])
def test_it_follows_the_formula_step_after_step(storage: str, mutual: bool, norm: str) -> None:
    eps, target = RADIUS[norm], reference.smoothed(LABELS, 0.5)
    threat = {"linf": Linf, "l2": L2}[norm](eps=eps)
    lam = 0.0 if mutual else LAM  # the pair of divergences replaces the squared distance
    method = FgsmPgk(lam=lam, mu=MU, reset=3, mutual=Mutual(alpha=7, beta=2) if mutual else Mutual())
    net = reference.tiny_net(1)
    plain = Plain(net)
    memory = exact_memory() if storage == "exact" else method.memory(Setup(COUNT, CLASSES, SHAPE, threat, PAD))
    kept = {name: torch.zeros(COUNT, *SHAPE, dtype=torch.float64) for name in ("delta", "momentum")}
    ratios = set()

    for epoch in range(7):
        x, view = reference.images(5, seed=epoch), a_view(epoch)
        corner = threat.corner(x, torch.Generator().manual_seed(epoch))
        # The formula. Epochs 0, 3 and 6 start again from a corner, without momentum.
        if epoch in (0, 3, 6):
            delta, momentum = corner, torch.zeros(5, *SHAPE, dtype=torch.float64)
        else:
            delta, momentum = (reference.show(kept[name][INDEX], view, PAD) for name in ("delta", "momentum"))
        at = delta.clone().requires_grad_()
        before = plain(x + at)
        g = reference.input_gradient(before, at, lambda z: reference.cross_entropy(z, target))
        adversarial = reference.project(delta + eps * reference.direction(g, norm), x, eps, norm)
        after = plain(x + adversarial)
        ratio = reference.accuracy(after, LABELS) / max(reference.accuracy(before, LABELS), 1 / 5)
        momentum = MU * momentum + g / g.abs().sum() * g.numel() * (2 - ratio)
        delta = reference.project(delta + eps * reference.direction(momentum, norm), x, eps, norm)
        classify = reference.cross_entropy(after, target).sum() / 5
        wanted = {"classify": classify, "proximity": lam * ((after - before) ** 2).sum() / (5 * CLASSES)}
        if mutual:
            wanted["mutual_main"] = 7 * reference.kl(after, before).sum() / (5 * CLASSES)
            wanted["mutual_aux"] = 2 * reference.kl(before, after).sum() / (5 * CLASSES)
        for name, new in (("delta", delta), ("momentum", momentum)):
            whole = reference.put_back(new, kept[name][INDEX], view, PAD)
            kept[name][INDEX] = whole if storage == "exact" else rounded(name, whole, eps, norm)
        ratios.add(ratio)

        net.zero_grad()
        batch, clock = Batch(x, target, INDEX, view), Clock(epoch, 7, 0, 1)
        losses = method(net, batch, Given(threat, corner=corner), memory, clock)
        losses.total.backward()
        terms = {name: term.item() for name, term in losses.terms.items()}
        assert terms == pytest.approx({name: term.item() for name, term in wanted.items()}, rel=1e-10)
        gradient = plain.gradient(sum(wanted.values()))
        assert reference.relative_error(reference.gradient_of(net), gradient) < 1e-10
        assert reference.relative_error(losses.logits, after) < 1e-10
        assert losses.stats["ratio"].item() == pytest.approx(ratio, rel=1e-6)
        for name, prior in memory.parts.items():
            scale = eps / 127 if prior.gather().dtype == torch.int8 else 1
            actual = prior.gather().double() * scale
            # A value on the edge between two codes may fall to either side of it.
            slack = (
                0 if storage == "exact" else (eps / 127 if name == "delta" else 2**-2 * float(kept[name].abs().max()))
            )
            torch.testing.assert_close(actual, kept[name], rtol=1e-6, atol=1e-12 + slack)
            assert (actual - kept[name]).abs().gt(1e-9).float().mean() < 0.02
            kept[name] = actual.clone()
        assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
        assert int(net[2].num_batches_tracked) == plain.forwards == 2 * (epoch + 1)

        # The same plain descent for both, so that the next step meets other weights.
        with torch.no_grad():
            for parameter, twin in zip(net.parameters(), plain.parameters, strict=True):
                parameter -= 0.1 * parameter.grad
                twin.copy_(parameter)
    assert len(ratios) > 2, "the momentum's factor must vary for this test to mean anything"


def test_the_ratio_survives_a_batch_without_a_correct_example() -> None:
    """acc(x + delta) = 0 counts as one correct example; the published code divides by zero."""
    net, x = reference.tiny_net(), reference.images(5)
    memory = exact_memory()
    wrong = reference.tiny_net().train()(x).argmin(1)
    losses = FgsmPgk()(
        net, Batch(x, wrong, INDEX), Given(Linf(eps=1e-6), corner=torch.zeros_like(x)), memory, clock_of(0)
    )
    assert losses.stats["ratio"].item() == 0
    assert all(prior.gather().isfinite().all() for prior in memory.parts.values())
    # 2 - r = 2, and the gradient's mean absolute element over the batch is 1.
    assert memory["momentum"].gather().abs().sum().item() == pytest.approx(2 * x.numel())


def test_it_memorises_nothing_of_examples_that_it_did_not_see() -> None:
    memory = exact_memory()
    for prior in memory.parts.values():
        prior.gather().fill_(0.01)
    FgsmPgk()(reference.tiny_net(), Batch(reference.images(5), LABELS, INDEX), Linf(eps=0.1), memory, clock_of(1))
    for prior in memory.parts.values():
        assert (prior.gather()[[2, 5]] == 0.01).all()
        assert (prior.gather()[INDEX] != 0.01).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_its_prior_terms_it_is_fgsm_from_a_corner(dtype: torch.dtype) -> None:
    batch = Batch(reference.images(5, dtype=dtype), LABELS, INDEX)
    gradients = []
    for method in (FgsmPgk(lam=0), PgdAt(steps=1, step_size=1, start="corner")):
        net = reference.tiny_net(dtype=dtype)
        memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(eps=0.1), PAD))
        torch.manual_seed(2)
        losses = method(net, batch, Linf(eps=0.1), memory, clock_of(0))
        losses.total.backward()
        gradients.append(reference.gradient_of(net))
    assert torch.equal(*gradients)


def test_the_defaults_are_those_published_for_cifar_10() -> None:
    method = FgsmPgk()
    assert (method.lam, method.mu, method.reset) == (5.6, 0.3, 10)


def test_a_gradient_of_exactly_zero_leaves_a_finite_memory() -> None:
    """A batch that the model is sure of has no gradient left in float32, and 0 / 0 would stay in the memory."""
    net = reference.tiny_net(dtype=torch.float32)
    x = reference.images(5, dtype=torch.float32)
    with torch.no_grad():
        net[4].weight.zero_()
        net[4].bias.copy_(torch.tensor([1e4, 0, 0, 0]))
    method, labels = FgsmPgk(), torch.zeros(5, dtype=torch.long)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(eps=0.1), PAD))
    method(net, Batch(x, labels, INDEX), Linf(eps=0.1), memory, clock_of(1))
    assert memory["momentum"].gather().isfinite().all()
