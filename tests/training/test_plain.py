"""The fast path of training against a plain one: the same batches and starts, 50 steps in float32.

The network has SiLU for ReLU: one of half a million units lies within rounding of its kink in every twentieth batch,
which turns an example's gradient by some percent, and then the two go ways of their own, as any two implementations
would. Under L-inf, where the sign of next to nothing is a matter of rounding, every step begins with the same weights.
"""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from regmix.config import Cyclic, Ema, Experiment
from regmix.data import ImageSet
from regmix.methods import FgsmPgk, RegMix
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.models import ResNet, build
from regmix.runs import Run
from regmix.runs.records import Environment
from regmix.runtime import devices
from regmix.threats import L2, Linf
from regmix.training import TrainStep
from regmix.training.prepare import Prepared
from regmix.training.session import Session
from regmix.training.trainee import Trainee
from regmix.types import Batch, Clock, Losses

PAD, CLASSES, MASS, LR = 2, 4, 0.9, 0.003
STEPS_PER_EPOCH, EPOCHS = 10, 5


def images(count: int, seed: int) -> ImageSet:
    """Noise whose brightest quarter is the class."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 160, (count, 3, 12, 12), generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    for i, label in enumerate(labels.tolist()):
        top, left = 6 * (label // 2), 6 * (label % 2)
        pixels[i, :, top : top + 6, left : left + 6] += 60
    return ImageSet(pixels.to(torch.uint8), labels, tuple(map(str, range(CLASSES))))


class Silent:
    def start(self, description: str, total: int, done: int = 0) -> None: ...
    def batch(self, examples: int) -> None: ...
    def epoch(self, row: dict) -> None: ...
    def alarm(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...


def element_kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    p, q = one.softmax(1), other.softmax(1)
    return (p * (p.log() - q.log())).mean()


def soft_cross_entropy(logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    return -(soft * logits.softmax(1).log()).sum(1).mean()


class Plain:
    """Both rules as public scripts write them: NCHW, whole backward passes, crops and memory image by image."""

    def __init__(self, model: torch.nn.Module, data: ImageSet, schedule: Cyclic, norm: str, eps: float) -> None:
        self.norm, self.eps = norm, eps
        self.model = model.to(memory_format=torch.contiguous_format).train()
        self.optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4, foreach=False)
        self.data, self.schedule = data, schedule
        side = 12 + 2 * PAD
        self.memory = {name: torch.zeros(len(data), 3, side, side) for name in ("delta", "momentum")}

    def cut(self, whole: torch.Tensor, batch: Batch) -> torch.Tensor:
        parts = []
        for i, top, left, flip in zip(batch.index, batch.view.top, batch.view.left, batch.view.flip, strict=True):
            part = whole[i][:, top : top + 12, left : left + 12]
            parts.append(part.flip(2) if flip else part)
        return torch.stack(parts)

    def put(self, name: str, parts: torch.Tensor, batch: Batch) -> None:
        for part, i, top, left, flip in zip(
            parts, batch.index, batch.view.top, batch.view.left, batch.view.flip, strict=True
        ):
            self.memory[name][i][:, top : top + 12, left : left + 12] = part.flip(2) if flip else part

    def step(self, method: Method, batch: Batch, start: torch.Tensor, count: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = LR * self.schedule.factor(count, STEPS_PER_EPOCH, EPOCHS)
        x = self.cut(F.pad(self.data.images.float() / 255, (PAD,) * 4), batch)
        y = self.data.labels[batch.index]
        soft = torch.full((len(y), CLASSES), (1 - MASS) / (CLASSES - 1))
        soft[torch.arange(len(y)), y] = MASS
        loss = getattr(self, type(method).__name__)(method, x, y, soft, start, batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def move(self, x: torch.Tensor, delta: torch.Tensor, towards: torch.Tensor, length: float) -> torch.Tensor:
        """delta after a step, inside the ball and the image's range."""
        if self.norm == "linf":
            delta = (delta + length * towards.sign()).clamp(-self.eps, self.eps)
        else:
            delta = delta + length * towards / towards.flatten(1).norm(dim=1)[:, None, None, None]
            delta = delta * (self.eps / delta.flatten(1).norm(dim=1).clamp_min(self.eps))[:, None, None, None]
        return (x + delta).clamp(0, 1) - x

    def gradient(self, loss: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        loss.backward(retain_graph=True)
        self.optimizer.zero_grad()
        return delta.grad.detach()

    def RegMix(self, method, x, y, soft, start, batch):  # noqa: N802
        delta, initial = start, None
        for _ in range(2):
            delta = delta.detach().requires_grad_()
            logits = self.model(x + delta)
            initial = logits if initial is None else initial
            gradient = self.gradient(F.cross_entropy(logits, y), delta)
            delta = self.move(x, delta.detach(), gradient, method.step_size * self.eps)
        final, clean = self.model(x + delta.detach()), self.model(x)
        return (
            soft_cross_entropy(final, soft)
            + method.alpha * element_kl(final, initial)
            + method.beta * element_kl(initial, final)
            + method.gamma * element_kl(clean, final)
        )

    def FgsmPgk(self, method, x, y, soft, start, batch):  # noqa: N802
        delta, momentum = start.detach().requires_grad_(), torch.zeros_like(x)
        before = self.model(x + delta)
        gradient = self.gradient(soft_cross_entropy(before, soft), delta)
        moved = self.move(x, start, gradient, self.eps)
        after = self.model(x + moved)
        right = [(logits.argmax(1) == y).sum().item() for logits in (after, before)]
        momentum = method.mu * momentum + (2 - right[0] / max(right[1], 1)) * gradient / gradient.abs().mean()
        self.put("delta", self.move(x, start, momentum, self.eps), batch)
        self.put("momentum", momentum, batch)
        return soft_cross_entropy(after, soft) + method.lam * F.mse_loss(after, before)


@pytest.mark.slow
@pytest.mark.parametrize("threat", [L2(0.5), Linf(8 / 255)], ids=["l2", "linf"])
@pytest.mark.parametrize("method", [RegMix(), FgsmPgk(reset=1)], ids=["regmix", "fgsm_pgk"])
def test_fifty_steps_agree_with_a_plain_implementation(
    method: Method, threat: L2 | Linf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build(ResNet(width=8, activation="silu"), CLASSES, 3, [0.4] * 3, [0.3] * 3)
    data, schedule = images(STEPS_PER_EPOCH * 16, 0), Cyclic()
    plain = Plain(copy.deepcopy(model), data, schedule, threat.name, threat.eps)
    drawn: list[torch.Tensor] = []
    real_corner, real_learn, real_forward = type(threat).corner, Trainee.learn, TrainStep.forward

    def corner(self: L2 | Linf, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        drawn.append(real_corner(self, x, generator))
        return drawn[-1]

    pairs: list[tuple[float, float]] = []
    totals: list[float] = []

    def forward(self: TrainStep, batch: Batch, memory: Memory | None, clock: Clock) -> Losses:
        losses = real_forward(self, batch, memory, clock)
        totals.append(losses.total.item())
        return losses

    def learn(self: Trainee, batch: Batch) -> None:
        drawn.clear()
        if isinstance(threat, Linf):
            plain.model.load_state_dict(self.model.state_dict())
        real_learn(self, batch)
        count = self.progress.epoch * STEPS_PER_EPOCH + self.progress.step - 1
        pairs.append((totals[-1], plain.step(method, batch, drawn[0].contiguous(), count)))

    monkeypatch.setattr(type(threat), "corner", corner)
    monkeypatch.setattr(Trainee, "learn", learn)
    monkeypatch.setattr(TrainStep, "forward", forward)
    experiment = Experiment(
        method=method, threat=threat, schedule=schedule, averaging=Ema(),
        epochs=EPOCHS, batch_size=16, lr=LR, label_mass=MASS, pad=PAD, flip=True, validate_every=EPOCHS,
    )  # fmt: skip
    run = Run.create(tmp_path / "run", "{}", Environment())
    prepared = Prepared(devices.start("cpu", "32"), model, data, images(40, 1), "32")
    Session(experiment, prepared, run, Silent()).train()
    assert len(pairs) == STEPS_PER_EPOCH * EPOCHS
    assert pairs[-1][0] < 0.8 * pairs[0][0], "something is learned"
    apart = [abs(ours - theirs) / theirs for ours, theirs in pairs]
    if isinstance(threat, Linf):
        assert sorted(apart)[-3] < 1e-5, "but for a sign or two of nothing"
    else:
        assert max(apart) < 1e-4
