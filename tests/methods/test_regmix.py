"""RegMix against its formula in every one of its settings, and what its settings reduce it to."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import PgdAt, RegMix, Setup
from regmix.methods.memory import Memory
from regmix.methods.per_image import PerImage
from regmix.threats import L2, Linf
from regmix.types import Batch, Clock, View

EPS, PAD = 0.1, 1
WEIGHTS = {"alpha": 7.0, "beta": 2.0, "gamma": 3.0}
AUTOMATIC = {"alpha": 5.0, "beta": 2.0, "gamma": 2.0}
# Which fields a term of the loss goes by, and the outputs that it compares.
TERMS = {
    "mutual_main": ("alpha", ("final", "initial")),
    "mutual_aux": ("beta", ("initial", "final")),
    "generalise": ("gamma", ("clean", "final")),
}
LABELS = torch.tensor([0, 2, 3, 1, 2])
INDEX = torch.tensor([6, 0, 3, 4, 1])
VIEW = View(
    torch.tensor([0, 1, 2, 0, 2]), torch.tensor([2, 1, 0, 1, 2]), torch.tensor([True, False, False, True, True])
)


def a_batch(labels: Tensor = LABELS) -> Batch:
    return Batch(reference.images(5), labels, INDEX, VIEW)


def random_corner(seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return EPS * (torch.rand(5, *SHAPE, generator=generator, dtype=torch.float64) - 0.5).sign()


def carried_memory() -> Memory:
    """A memory of seven images in exact arithmetic."""
    memory = Memory(delta=PerImage(7, SHAPE, PAD, torch.device("cpu"), dtype=torch.float64))
    generator = torch.Generator().manual_seed(4)
    memory["delta"].gather().uniform_(-EPS, EPS, generator=generator)
    return memory


def objective_of(inner: str, target: Tensor) -> Callable[[Tensor], Tensor]:
    labels = target.argmax(1)
    return {
        "cross_entropy": lambda z: reference.cross_entropy(z, reference.smoothed(labels, 1.0)),
        "smoothed": lambda z: reference.cross_entropy(z, target),
        "margin": lambda z: reference.margin(z, labels),
    }[inner]


def outputs(
    plain: Plain,
    x: Tensor,
    target: Tensor,
    start: Tensor,
    *,
    bn: str = "train",
    inner: str = "cross_entropy",
    **how: Any,
) -> tuple[dict[str, Tensor], Tensor]:
    """z_I, z_F and z_C in the order in which they update BatchNorm, and the final perturbation."""
    how = {"steps": 2, "step": EPS, "eps": EPS} | how
    delta, first = reference.climb(plain, x, start, objective_of(inner, target), batch_statistics=bn == "train", **how)
    z = {"initial": first if bn == "train" else plain(x + start)}
    z["final"] = plain(x + delta)
    z["clean"] = plain(x)
    return z, delta


def divergence(z: dict[str, Tensor], order: tuple[str, str], stop: str) -> Tensor:
    """The sum over the batch of KL(first || second), one of which may get no gradient."""
    p, q = (z[side].detach() if side == stop else z[side] for side in order)
    return reference.kl(p, q).sum()


FAST = {("fresh", "eval", "margin"), ("carried", "train", "cross_entropy"), ("fresh", "train", "smoothed")}


def assert_same_statistics(net: nn.Sequential, plain: Plain) -> None:
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert reference.relative_error(net[2].running_var, plain.variance) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards


@pytest.mark.parametrize(
    ("start", "bn", "inner"),
    [
        # Each value once in the fast set; all combinations in the slow one.
        pytest.param(*chosen, marks=[] if chosen in FAST else [pytest.mark.slow])
        for chosen in itertools.product(
            ("fresh", "carried"), ("train", "eval"), ("cross_entropy", "smoothed", "margin")
        )
    ],
)
def test_every_setting_agrees_with_the_formula(start: str, bn: str, inner: str) -> None:
    net, target = reference.tiny_net(), reference.smoothed(LABELS, 0.6)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    batch, corner = a_batch(target), random_corner()
    threat = Given(Linf(eps=EPS), corner=corner)
    memory = carried_memory() if start == "carried" else None
    remembered = memory["delta"].gather().clone() if memory else torch.zeros(7, *SHAPE)

    plain = Plain(net)
    first = reference.show(remembered[INDEX], VIEW, PAD) if memory else corner
    z, delta = outputs(plain, batch.x, target, first, bn=bn, inner=inner)
    remembered_next = remembered.clone()
    remembered_next[INDEX] = reference.put_back(delta, remembered[INDEX], VIEW, PAD)
    classify = reference.cross_entropy(z["final"], target).sum() / 5
    classify_gradient = plain.gradient(classify)
    # The loss is linear in its terms, and so is its gradient: 18 of them make every combination.
    parts = {}
    for term, (_, sides) in TERMS.items():
        for order, stop in itertools.product((sides, sides[::-1]), ("none", *sides)):
            value = divergence(z, order, stop)
            parts[term, order, stop] = value.detach(), plain.gradient(value)

    seen = 0
    choices = [itertools.product((s, s[::-1]), ("none", *s)) for _, s in TERMS.values()]
    for units, *chosen in itertools.product(("element", "example", "auto"), *choices):
        settings: dict[str, Any] = {"weights": "auto"} if units == "auto" else {"reduction": units}
        weights = AUTOMATIC if units == "auto" else WEIGHTS
        expected, gradient = [classify.detach()], classify_gradient.clone()
        for (term, (letter, _)), (order, stop) in zip(TERMS.items(), chosen, strict=True):
            settings |= {f"{letter}_order": "_".join(order), f"{letter}_stop": stop}
            scale = weights[letter] / (5 * CLASSES if units == "element" else 5)
            value, part = parts[term, order, stop]
            expected.append(scale * value)
            gradient += scale * part
        method = RegMix(**WEIGHTS, **settings, start=start, attack_batchnorm=bn, inner=inner)
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])
        net.zero_grad()
        if memory:
            memory["delta"].gather().copy_(remembered)
        losses = method(net, batch, threat, memory, Clock(1, 2, 0, 1))
        losses.total.backward()

        assert [*losses.terms] == ["classify", *TERMS]
        terms = torch.stack([*losses.terms.values()])
        assert ((terms / torch.stack(expected) - 1).abs() < 1e-10).all(), method
        assert abs(losses.total / sum(expected) - 1) < 1e-10, method
        error = reference.relative_error(reference.gradient_of(net), gradient)
        assert error < 1e-10, f"{method}: the gradient is off by {error:.1e}"
        assert reference.relative_error(losses.logits, z["final"]) < 1e-10
        assert_same_statistics(net, plain)
        if memory:
            assert (memory["delta"].gather() - remembered_next).abs().max() < 1e-14
        seen += 1
    assert seen == 3 * 6**3
    ratio = reference.accuracy(z["final"], LABELS) / max(reference.accuracy(z["initial"], LABELS), 1 / 5)
    assert losses.stats["ratio"].item() == pytest.approx(ratio)


def test_the_reference_tells_the_settings_apart() -> None:
    """The comparison above is worth something only if orders and stop-gradients change the gradient visibly."""
    net, target = reference.tiny_net(), reference.smoothed(LABELS, 0.6)
    plain = Plain(net)
    z, _ = outputs(plain, reference.images(5), target, random_corner())
    for _, sides in TERMS.values():
        kinds = itertools.product((sides, sides[::-1]), ("none", *sides))
        gradients = [plain.gradient(divergence(z, order, stop)) for order, stop in kinds]
        for one, other in itertools.combinations(gradients, 2):
            assert reference.relative_error(one, other) > 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("bn", ["train", "eval"])
@pytest.mark.parametrize(("steps", "step_size"), [(1, 1.0), (1, 0.25), (2, 0.5), (2, 1.25), (3, 0.7), (5, 1.0)])
def test_the_attack_has_the_steps_it_is_told(steps: int, step_size: float, bn: str, norm: str) -> None:
    net, eps = reference.tiny_net(1), EPS if norm == "linf" else 0.4
    target = reference.smoothed(LABELS, 1.0)
    threat = {"linf": Linf, "l2": L2}[norm](eps=eps)
    corner = threat.corner(reference.images(5), torch.Generator().manual_seed(0))
    plain = Plain(net)
    z, _ = outputs(
        plain, reference.images(5), target, corner, bn=bn, steps=steps, step=step_size * eps, eps=eps, norm=norm
    )
    expected = reference.cross_entropy(z["final"], target).mean()
    for letter, sides in TERMS.values():
        expected = expected + WEIGHTS[letter] / (5 * CLASSES) * divergence(z, sides, "none")

    method = RegMix(**WEIGHTS, steps=steps, step_size=step_size, attack_batchnorm=bn)
    losses = method(net, a_batch(), Given(threat, corner=corner), None)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10
    assert_same_statistics(net, plain)


@pytest.mark.parametrize("bn", ["train", "eval"])
@pytest.mark.parametrize("kept", [("alpha",), ("beta",), ("gamma",), ("alpha", "beta"), ("beta", "gamma")])
def test_a_term_of_weight_zero_is_not_computed(kept: tuple[str, ...], bn: str) -> None:
    net, target = reference.tiny_net(2), reference.smoothed(LABELS, 1.0)
    plain, x, corner = Plain(net), reference.images(5), random_corner()
    delta, first = reference.climb(
        plain,
        x,
        corner,
        objective_of("cross_entropy", target),
        steps=2,
        step=EPS,
        eps=EPS,
        batch_statistics=bn == "train",
    )
    z = {}
    if {"alpha", "beta"} & {*kept}:
        z["initial"] = first if bn == "train" else plain(x + corner)
    z["final"] = plain(x + delta)
    if "gamma" in kept:
        z["clean"] = plain(x)
    expected = {"classify": reference.cross_entropy(z["final"], target).mean().item()}
    for term, (letter, sides) in TERMS.items():
        if letter in kept:
            expected[term] = WEIGHTS[letter] * divergence(z, sides, "none").item() / (5 * CLASSES)

    method = RegMix(**{name: WEIGHTS[name] * (name in kept) for name in WEIGHTS}, attack_batchnorm=bn)
    losses = method(net, a_batch(), Given(Linf(eps=EPS), corner=corner), None)
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(expected, rel=1e-10)
    assert_same_statistics(net, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", [Linf(eps=EPS), L2(eps=0.4)], ids=lambda threat: threat.name)
def test_zero_weights_are_pgd_2_from_a_corner_bit_for_bit(threat: Linf | L2, dtype: torch.dtype) -> None:
    def step(method: RegMix | PgdAt) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        net = reference.tiny_net(dtype=dtype)
        torch.manual_seed(5)
        losses = method(net, a_batch()._replace(x=reference.images(5, dtype=dtype)), threat, None)
        losses.total.backward()
        return losses.terms, reference.gradient_of(net), net.state_dict()

    terms, gradient, state = step(RegMix(alpha=0, beta=0, gamma=0))
    parent_terms, parent_gradient, parent_state = step(PgdAt(steps=2, step_size=1, start="corner"))
    assert terms.keys() == parent_terms.keys() == {"classify"}
    assert torch.equal(terms["classify"], parent_terms["classify"])
    assert torch.equal(gradient, parent_gradient)
    assert all(torch.equal(value, parent_state[name]) for name, value in state.items())


def test_the_defaults_are_the_published_settings_in_the_papers_units() -> None:
    """50/20/20, averaged over every element, is 5/2/2 per example at 10 classes and 0.5/0.2/0.2 at 100."""
    for classes, per_example in ((10, (5, 2, 2)), (100, (0.5, 0.2, 0.2))):
        net = nn.Sequential(nn.Flatten(), nn.Linear(18, classes)).double()
        losses = RegMix()(net, a_batch(), Linf(eps=EPS), None)
        for term, weight in zip(TERMS, per_example, strict=True):
            assert (losses.terms[term] / losses.stats[term]).item() == pytest.approx(weight)
            assert losses.stats[f"{term}_weight"].item() == pytest.approx(weight)


def test_the_carried_start_begins_with_a_corner_and_is_kept_within_a_grey_level() -> None:
    net, batch, corner = reference.tiny_net(), a_batch(), random_corner()
    method = RegMix(start="carried")
    memory = method.memory(Setup(7, CLASSES, SHAPE, Linf(eps=EPS), PAD))
    assert memory is not None
    target = reference.smoothed(LABELS, 1.0)
    _, delta = outputs(Plain(net), batch.x, target, corner)
    carried = method(net, batch, Given(Linf(eps=EPS), corner=corner), memory, Clock(0, 2, 0, 1))
    fresh = RegMix()(reference.tiny_net(), batch, Given(Linf(eps=EPS), corner=corner), None)
    assert all(torch.equal(carried.terms[name], term) for name, term in fresh.terms.items())

    expected = torch.zeros(7, *SHAPE, dtype=torch.float64)
    expected[INDEX] = reference.put_back(delta, expected[INDEX], VIEW, PAD)
    kept = memory["delta"].gather() * (EPS / 127)
    torch.testing.assert_close(kept.double(), expected, rtol=0, atol=EPS / 127 / 2 * 1.001)
    assert RegMix(start="fresh").memory(Setup(7, CLASSES, SHAPE, Linf(eps=EPS))) is None
