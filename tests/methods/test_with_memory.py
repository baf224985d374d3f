"""FGSM-BP, FGSM-EP, FGSM-MEP and ATAS against their formulas, in float64, step after step."""

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import Atas, FgsmBp, FgsmEp, FgsmMep, Method, Mutual, Setup
from regmix.methods.memory import Memory
from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.threats import L2, Linf
from regmix.types import Batch, Clock, View

COUNT, PAD = 7, 1
LABELS = torch.tensor([0, 2, 3, 1, 2])
INDEX = torch.tensor([6, 0, 3, 4, 1])
RADIUS = {"linf": 0.1, "l2": 0.4}
THREAT = {"linf": Linf, "l2": L2}
LAM, MU = 3.0, 0.3

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def a_view(seed: int) -> View:
    generator = torch.Generator().manual_seed(seed)
    top, left = torch.randint(2 * PAD + 1, (2, 5), generator=generator)
    return View(top, left, torch.rand(5, generator=generator) < 0.5)


def exact(*names: str) -> Memory:
    """A memory in float64."""
    return Memory(**{name: PerImage(COUNT, SHAPE, PAD, torch.device("cpu"), dtype=torch.float64) for name in names})


def proximal(plain: Plain, x: Tensor, before: Tensor, delta: Tensor, target: Tensor) -> tuple[dict, Tensor]:
    after = plain(x + delta)
    terms = {
        "classify": reference.cross_entropy(after, target).sum() / 5,
        "proximity": LAM * ((after - before) ** 2).sum() / (5 * CLASSES),
    }
    return terms, after


def a_gradient(plain: Plain, x: Tensor, target: Tensor, batch_statistics: bool = True) -> tuple[Tensor, Tensor]:
    at = x.clone().requires_grad_()
    z = plain(at, batch_statistics)
    return reference.input_gradient(z, at, lambda z: reference.cross_entropy(z, target)), z


class Twins:
    """The package's network and the reference's, which make the same plain descent."""

    def __init__(self) -> None:
        self.net = reference.tiny_net(1)
        self.plain = Plain(self.net)

    def step(
        self, method: Method, batch: Batch, threat: Given, memory: Memory, clock: Clock, terms: dict[str, Tensor]
    ) -> None:
        self.net.zero_grad()
        losses = method(self.net, batch, threat, memory, clock)
        losses.total.backward()
        actual = {name: term.item() for name, term in losses.terms.items()}
        assert actual == pytest.approx({name: term.item() for name, term in terms.items()}, rel=1e-10)
        gradient = self.plain.gradient(sum(terms.values()))
        assert reference.relative_error(reference.gradient_of(self.net), gradient) < 1e-10
        assert reference.relative_error(self.net[2].running_mean, self.plain.mean) < 1e-12
        assert int(self.net[2].num_batches_tracked) == self.plain.forwards
        with torch.no_grad():
            for parameter, twin in zip(self.net.parameters(), self.plain.parameters, strict=True):
                parameter -= 0.1 * parameter.grad
                twin -= twin - parameter


@both_norms
def test_fgsm_bp_hands_its_perturbation_from_batch_to_batch(norm: str) -> None:
    eps, target = RADIUS[norm], reference.smoothed(LABELS, 0.6)
    threat, twins, method = THREAT[norm](eps=eps), Twins(), FgsmBp(lam=LAM)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, threat, PAD))
    delta = torch.zeros(5, *SHAPE, dtype=torch.float64)
    for number in range(4):
        x = reference.images(5, seed=number)
        corner = threat.corner(x, torch.Generator().manual_seed(number))
        if number == 0:
            delta = corner
        g, before = a_gradient(twins.plain, x + delta, target)
        delta = reference.project(delta + eps * reference.direction(g, norm), x, eps, norm)
        terms, _ = proximal(twins.plain, x, before, delta, target)
        epoch, step = divmod(number, 2)
        batch = Batch(x, target, INDEX, a_view(number))
        twins.step(method, batch, Given(threat, corner=corner), memory, Clock(epoch, 2, step, 2), terms)
        assert reference.relative_error(memory["delta"].gather(), delta) < 1e-10


@both_norms
@pytest.mark.parametrize("momentum", [None, "gradient", "sign"])
@pytest.mark.parametrize("mutual", [False, True])
def test_fgsm_ep_and_mep_remember_every_image(mutual: bool, momentum: str | None, norm: str) -> None:
    if mutual and not momentum:
        return
    eps, target = RADIUS[norm], reference.smoothed(LABELS, 0.6)
    threat, twins = THREAT[norm](eps=eps), Twins()
    extra = Mutual(alpha=7, beta=2, gamma=3) if mutual else Mutual()
    method = FgsmEp(lam=LAM, reset=3)
    if momentum:
        method = FgsmMep(lam=LAM, mu=MU, momentum=momentum, reset=3, mutual=extra)
    memory = exact("delta", "momentum") if momentum else exact("delta")
    kept = {name: torch.zeros(COUNT, *SHAPE, dtype=torch.float64) for name in memory.parts}
    for epoch in range(7):
        x, view = reference.images(5, seed=epoch), a_view(epoch)
        corner = threat.corner(x, torch.Generator().manual_seed(epoch))
        delta = corner if epoch in (0, 3, 6) else reference.show(kept["delta"][INDEX], view, PAD)
        g, before = a_gradient(twins.plain, x + delta, target)
        adversarial = reference.project(delta + eps * reference.direction(g, norm), x, eps, norm)
        terms, after = proximal(twins.plain, x, before, adversarial, target)
        new = {"delta": adversarial}
        if momentum:
            m = reference.direction(g, norm) if momentum == "sign" else g / (g.abs().sum() / g.numel())
            if epoch not in (0, 3, 6):
                m = m + MU * reference.show(kept["momentum"][INDEX], view, PAD)
            new = {
                "delta": reference.project(delta + eps * reference.direction(m, norm), x, eps, norm),
                "momentum": m,
            }
        if mutual:
            clean = twins.plain(x)
            terms["mutual_main"] = 7 * reference.kl(after, before).sum() / (5 * CLASSES)
            terms["mutual_aux"] = 2 * reference.kl(before, after).sum() / (5 * CLASSES)
            terms["generalise"] = 3 * reference.kl(clean, after).sum() / (5 * CLASSES)
        for name, values in new.items():
            kept[name][INDEX] = reference.put_back(values, kept[name][INDEX], view, PAD)
        batch = Batch(x, target, INDEX, view)
        twins.step(method, batch, Given(threat, corner=corner), memory, Clock(epoch, 7, 0, 1), terms)
        for name, prior in memory.parts.items():
            torch.testing.assert_close(prior.gather(), kept[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("mu", "same"), [(0.3, True), (0.9, False)])
def test_a_momentum_of_signs_below_one_half_is_no_momentum(mu: float, same: bool) -> None:
    """|mu m| stays below mu / (1 - mu) < 1, so the next start is the adversarial example: FGSM-EP."""
    threat, nets = Linf(eps=0.1), (reference.tiny_net(1), reference.tiny_net(1))
    methods = FgsmMep(lam=LAM, mu=mu, momentum="sign", reset=20), FgsmEp(lam=LAM, reset=20)
    memories = exact("delta", "momentum"), exact("delta")
    for epoch in range(8):
        x = reference.images(5, seed=0)
        corner = threat.corner(x, torch.Generator().manual_seed(epoch))
        for method, memory, net in zip(methods, memories, nets, strict=True):
            batch = Batch(x, reference.smoothed(LABELS, 0.6), INDEX, None)
            total = method(net, batch, Given(threat, corner=corner), memory, Clock(epoch, 12, 0, 1)).total
            for parameter, g in zip(net.parameters(), torch.autograd.grad(total, [*net.parameters()]), strict=True):
                parameter.data -= 0.5 * g
    one, other = (memory["delta"].gather() for memory in memories)
    assert torch.equal(one, other) == same


def test_fgsm_mep_in_eight_bits_stays_close_to_exact_memory() -> None:
    """Only a sum of momentum and gradient that nearly cancels can change its sign."""
    threat, method = Linf(eps=0.1), FgsmMep(lam=LAM, mu=MU, reset=20)
    rounded = method.memory(Setup(COUNT, CLASSES, SHAPE, threat, PAD))
    assert {prior.gather().element_size() for prior in rounded.parts.values()} == {1}
    memories, nets = (exact("delta", "momentum"), rounded), (reference.tiny_net(1), reference.tiny_net(1))
    for epoch in range(12):
        x, view = reference.images(5, seed=0), a_view(epoch)
        corner = threat.corner(x, torch.Generator().manual_seed(epoch))
        for memory, net in zip(memories, nets, strict=True):
            batch = Batch(x, reference.smoothed(LABELS, 0.6), INDEX, view)
            total = method(net, batch, Given(threat, corner=corner), memory, Clock(epoch, 12, 0, 1)).total
            for parameter, g in zip(net.parameters(), torch.autograd.grad(total, [*net.parameters()]), strict=True):
                parameter.data -= 0.05 * g
    true, near = (memory["momentum"].gather().double() for memory in memories)
    assert (near.sign() == true.sign()).double().mean() > 0.98
    one, other = (torch.cat([p.flatten() for p in net.parameters()]) for net in nets)
    assert reference.relative_error(other, one) < 0.01


def atas_step(v: Tensor, norm_square: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.5 * v + 0.5 * norm_square
    step = [min(max(2 / (1 + float(one) ** 0.5 / 0.2), 0.5), 1.75) for one in v]
    return v, torch.tensor(step, dtype=torch.float64)


@both_norms
def test_atas_takes_shorter_steps_where_gradients_are_large(norm: str) -> None:
    eps, target = RADIUS[norm], reference.smoothed(LABELS, 1.0)
    threat, twins, method = THREAT[norm](eps=eps), Twins(), Atas(c=0.2, warm_up=2, reset=4)
    memory = exact("delta")
    memory.parts["v"] = NumberPerImage(COUNT, torch.device("cpu"))
    memory["v"]._rows._rows = memory["v"].gather().double()
    kept, v = torch.zeros(COUNT, *SHAPE, dtype=torch.float64), torch.zeros(COUNT, dtype=torch.float64)
    steps = set()
    for epoch in range(8):
        x, view = reference.images(5, seed=epoch), a_view(epoch)
        uniform = threat.uniform(x, torch.Generator().manual_seed(epoch))
        # Epochs counted from 1: 4 starts again, 8 is the last and does not.
        start = uniform if epoch in (0, 3) else reference.show(kept[INDEX], view, PAD)
        start = reference.project(start, x, eps, norm)
        g, _ = a_gradient(twins.plain, x + start, target, batch_statistics=False)
        step = torch.ones(5, dtype=torch.float64)
        if epoch >= 2:
            v[INDEX], step = atas_step(v[INDEX], ((g / 5) ** 2).flatten(1).sum(1))
        steps |= {round(one, 6) for one in step.tolist()}
        moved = start + eps * step.view(-1, 1, 1, 1) * reference.direction(g, norm)
        delta = reference.project(moved, x, eps, norm)
        kept[INDEX] = reference.put_back(delta, kept[INDEX], view, PAD)
        terms = {"classify": reference.cross_entropy(twins.plain(x + delta), target).sum() / 5}
        batch = Batch(x, LABELS, INDEX, view)
        twins.step(method, batch, Given(threat, uniform=uniform), memory, Clock(epoch, 8, 0, 1), terms)
        torch.testing.assert_close(memory["delta"].gather(), kept, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(memory["v"].gather(), v, rtol=1e-10, atol=0)
    assert len(steps) > 3


def test_the_step_of_atas_lies_between_its_bounds() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 4)).double()
    for scale, expected in ((1e-6, 1.75), (1e3, 0.5)):
        with torch.no_grad():
            model[1].weight.copy_(scale * torch.randn(4, 18, generator=torch.Generator().manual_seed(0)))
        method = Atas(warm_up=0)
        memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(eps=0.1)))
        batch = Batch(reference.images(5), (LABELS + 1) % 4, INDEX)
        losses = method(model, batch, Linf(eps=0.1), memory, Clock(0, 8, 0, 1))
        assert losses.stats["step_size"].item() == pytest.approx(expected, rel=0.35)
