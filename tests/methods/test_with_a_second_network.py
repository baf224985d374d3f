"""FGSM-LAW, FGSM-FUAP and FGSM-SDI against their formulas, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import CLASSES, HIDDEN, SHAPE, Given, Plain
from regmix.methods import FgsmFuap, FgsmLaw, FgsmSdi, Setup
from regmix.methods.generator import WIDTH
from regmix.threats import Linf
from regmix.types import Batch, Clock

COUNT, EPS = 7, 0.15
LABELS = torch.arange(COUNT) % CLASSES


def a_batch(seed: int, mass: float) -> Batch:
    return Batch(reference.images(COUNT, seed), reference.smoothed(LABELS, mass), torch.arange(COUNT))


def a_draw(seed: int, *shape: int) -> Tensor:
    return EPS * (2 * torch.rand(shape or (COUNT, *SHAPE), generator=torch.Generator().manual_seed(seed)).double() - 1)


def projected(delta: Tensor, x: Tensor) -> Tensor:
    return reference.project(delta, x, EPS)


def features_of(plain: Plain, x: Tensor) -> Tensor:
    """What tiny_net's last layer is given: found by a layer that passes it on."""
    w2, b2 = plain.parameters[4:]
    plain.parameters[4:] = [torch.eye(HIDDEN, dtype=torch.float64), torch.zeros(HIDDEN, dtype=torch.float64)]
    features = plain(x)
    plain.parameters[4:] = [w2, b2]
    return features


def both(plain: Plain, x: Tensor) -> tuple[Tensor, Tensor]:
    h = features_of(plain, x)
    return h @ plain.parameters[4].T + plain.parameters[5], h


def gradient_at(plain: Plain, x: Tensor, objective) -> Tensor:
    at = x.clone().requires_grad_()
    return torch.autograd.grad(objective(plain(at)).sum(), at)[0]


def mean_square(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other) ** 2).sum() / one.numel()


def assert_agrees(losses, terms: dict[str, Tensor], net: nn.Module, plain: Plain) -> None:
    net.zero_grad()
    losses.total.backward()
    assert [*losses.terms] == [*terms]
    for name, expected in terms.items():
        assert losses.terms[name].item() == pytest.approx(expected.item(), rel=1e-9)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(terms.values()))) < 1e-9
    assert int(net[2].num_batches_tracked) == plain.forwards


@pytest.mark.parametrize("attack_outputs", ["probabilities", "logits"])
@pytest.mark.parametrize("mass", [1.0, 0.7])
def test_law_compares_probabilities_and_features_with_the_clean_ones(attack_outputs: str, mass: float) -> None:
    net, batch = reference.tiny_net(), a_batch(0, mass)
    plain, x, corner = Plain(net), batch.x, EPS * torch.sign(a_draw(1))
    one_hot = reference.smoothed(LABELS, 1.0)

    def climbed(z: Tensor) -> Tensor:
        return reference.cross_entropy(reference.softmax(z) if attack_outputs == "probabilities" else z, one_hot)

    start = projected(corner / 2, x)
    delta = projected(start + EPS * torch.sign(gradient_at(plain, x + start, climbed)), x)
    (clean, clean_h), (z, h) = both(plain, x), both(plain, x + delta)
    changes = mean_square(reference.softmax(z), reference.softmax(clean))
    changes = changes + mean_square(reference.softmax(h), reference.softmax(clean_h))
    terms = {
        "classify": reference.cross_entropy(z, batch.y).sum() / COUNT,
        "lipschitz": 3 * changes / ((delta**2).sum() / delta.numel() + 0.125),
    }
    losses = FgsmLaw(lam=3.0, attack_outputs=attack_outputs)(net, batch, Given(Linf(EPS), corner=corner))
    assert losses.stats["ratio"].item() == pytest.approx(
        reference.accuracy(z, LABELS) / max(reference.accuracy(clean, LABELS), 1 / COUNT)
    )
    assert_agrees(losses, terms, net, plain)


def test_fuap_lets_the_features_choose_and_trains_the_head_that_does() -> None:
    number, mass = 3, 0.64
    method = FgsmFuap(count=number, lam=2.0)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu"))
    assert memory is not None
    head = nn.ModuleList([nn.Linear(HIDDEN, number), nn.Linear(number, CLASSES)]).double()
    with torch.no_grad():
        usual = features_of(Plain(reference.tiny_net()), reference.images(COUNT)).mean(0)
        head[0].bias.copy_(-head[0].weight @ usual)  # so that the images choose differently
    first = torch.cat([parameter.detach().flatten() for parameter in head.parameters()])
    adam = torch.optim.Adam(head.parameters(), 0.001)
    memory["head"].load(torch.cat([first, first.new_zeros(2 * len(first) + 1)]))
    begin = EPS * torch.sign(a_draw(9, number, *SHAPE))
    u, m = 1.25 * begin, torch.zeros(number, *SHAPE, dtype=torch.float64)
    for step in range(3):
        batch, noise, net = a_batch(step, mass), a_draw(step), reference.tiny_net()
        x, plain = batch.x, Plain(net)
        noisy = (x + noise).clamp(0, 1)
        scores = head[0](features_of(plain, noisy).detach())
        chosen = scores.argmax(1)
        assert len(set(chosen.tolist())) > 1
        adam.zero_grad()
        (reference.cross_entropy(head[1](scores.clamp_min(0)), batch.y).sum() / COUNT).backward()
        adam.step()
        start = projected(noisy - x + u[chosen], x)
        at = (x + start).requires_grad_()
        z = plain(at)
        g = reference.input_gradient(z, at, lambda z, t=batch.y: reference.cross_entropy(z, t))
        delta = projected(start + EPS * torch.sign(g), x)
        after = plain(x + delta)
        terms = {
            "classify": reference.cross_entropy(after, batch.y).sum() / COUNT,
            "proximity": 2 * mean_square(after, z),
        }
        for k in set(chosen.tolist()):
            m[k] = (g[chosen == k] / g.abs().mean()).sum(0) / (chosen == k).sum() + 0.3 * m[k]
            u[k] = (u[k] + 1.25 * EPS * torch.sign(m[k])).clamp(-1.25 * EPS, 1.25 * EPS)
        threat = Given(Linf(EPS), uniform=noise, corner=begin)
        losses = method(net, Batch(x, batch.y), threat, memory, Clock(0, 2, step, 3))
        assert_agrees(losses, terms, net, plain)
        torch.testing.assert_close(memory["delta"].gather(), u)
        torch.testing.assert_close(
            memory["head"].gather()[: len(first)], torch.cat([p.flatten() for p in head.parameters()])
        )


class Generator(nn.Module):
    """SDI's generator once more, from its description."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * channels, WIDTH, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH, eps=0.001)
        self.slopes = nn.ParameterList([nn.Parameter(torch.full((1,), 0.25)) for _ in range(2)])
        self.layers = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(WIDTH, affine=False) for _ in range(3)])
        self.last = nn.Conv2d(WIDTH, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).clamp_min(0)
        y = x
        for norm, slope, layer in zip(self.norms, self.slopes, self.layers, strict=False):
            z = norm(y)
            y = layer(torch.where(z > 0, z, slope * z))
        return EPS * torch.tanh(self.last(self.norms[2](x + y)))

    def in_order(self) -> list[Tensor]:
        """The weights in the order of the method's vector."""
        one, two = ([slope, *layer.parameters()] for slope, layer in zip(self.slopes, self.layers, strict=True))
        return [self.first.weight, *self.norm.parameters(), *one, *two, *self.last.parameters()]


def test_sdi_trains_on_the_end_of_a_step_from_what_its_generator_makes() -> None:
    method = FgsmSdi(refresh=2)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu"))
    assert memory is not None
    state = memory["generator"].gather()
    made = Generator(SHAPE[0]).double()
    with torch.no_grad():
        begin = 0
        for parameter in made.in_order():
            parameter.copy_(state[begin : begin + parameter.numel()].view_as(parameter))
            begin += parameter.numel()
    bound = math.sqrt(2) * math.sqrt(6 / (2 * 9 * WIDTH))  # Xavier's, for 3x3 kernels
    assert made.layers[0].weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    adam, one_hot = torch.optim.Adam(made.parameters(), 0.001, weight_decay=5e-4), reference.smoothed(LABELS, 1.0)

    def end(plain: Plain, x: Tensor, start: Tensor) -> Tensor:
        g = gradient_at(plain, x + start.detach(), lambda z: reference.cross_entropy(z, one_hot))
        return projected(start + EPS * torch.sign(g), x)

    for step in range(4):
        batch, net = a_batch(step, 0.5), reference.tiny_net()
        x, plain = batch.x, Plain(net)
        g = gradient_at(plain, x, lambda z: reference.cross_entropy(z, one_hot))
        seen = torch.cat([x, torch.sign(g)], 1)
        if step % 2 == 0:
            start = projected(made.train()(seen), x)
            loss = reference.cross_entropy(plain(x + end(plain, x, start)), batch.y).sum() / COUNT
            adam.zero_grad()
            (-loss).backward(inputs=[*made.parameters()])
            adam.step()
        logits = plain(x + end(plain, x, projected(made.eval()(seen), x).detach()))
        terms = {"classify": reference.cross_entropy(logits, batch.y).sum() / COUNT}
        losses = method(net, Batch(x, batch.y), Linf(EPS), memory, Clock(0, 2, step, 4))
        assert_agrees(losses, terms, net, plain)
        begin = memory["generator"].gather()[: sum(p.numel() for p in made.parameters())]
        torch.testing.assert_close(begin, torch.cat([p.flatten() for p in made.in_order()]))
