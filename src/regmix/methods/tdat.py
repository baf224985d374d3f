"""TDAT: one step from the batch before, with labels that are relaxed more and more, and a penalty on doubt."""

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import check_weights
from regmix.methods.storage import PerRow
from regmix.objectives import cross_entropy, precise, smooth
from regmix.threats import Threat
from regmix.types import Batch, Clock, Labels, Logits, Losses, Tag, require


@dataclass(frozen=True)
class Tdat(Method):
    """One step from the last batch's perturbation, row by row; the labels' mass falls during the training.

    With delta the last batch's perturbation (a random corner in the first step), z_0 = f(x + delta) and
    z_1 = f(x + delta'):

        m      = max(least_mass, first_mass tan(1 - epoch / epochs)), at most 1, the epoch counted from 0
        delta' = P[delta + eps sign(grad CE(z_0, t))]                       the adversarial example, and the next start
        loss   = CE(z_1, t') + lam mean (||z_0 - z_1||^2 tanh(1 - softmax(z_0)_y))          over the examples

    where t has the mass m on the true class and the rest on the others, and t' mixes the label, with weight m, with the
    uniform distribution over all classes. Gradients flow through both outputs. Where labels are soft already, t and t'
    are as given.

    Source: the public code of TDAT (bookman233/TDAT, CVPR 2024). Its momentum for the memory is overwritten and has no
    effect, so there is none here. Deviations: the code adds 1e-7 inside tanh; batches of another size are trained on,
    too; rows that the last batch did not have start at zero.
    """

    title = "TDAT"
    hard_labels = True
    needs_clock = True
    name: Tag[Literal["tdat"]] = field(default="tdat", kw_only=True)
    lam: float = 0.65
    """Weight of the penalty."""
    first_mass: float = 0.6
    """Factor of the tangent in the labels' mass, which begins at tan(1) = 1.56 times this."""
    least_mass: float = 0.15
    """The labels' mass does not fall below this, in (0, 1]."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam, first_mass=self.first_mass)
        require(0 < self.least_mass <= 1, f"method least_mass is {self.least_mass}; it must lie in (0, 1]")

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=PerRow(setup.shape, setup.device))

    def phase(self, clock: Clock) -> tuple[bool, int, int]:
        """Whether there is no batch before, and what the mass depends on."""
        return clock.epoch == clock.step == 0, clock.epoch, clock.epochs

    def mass(self, clock: Clock) -> float:
        """The labels' mass in this epoch."""
        return min(1.0, max(self.least_mass, self.first_mass * math.tan(1 - clock.epoch / clock.epochs)))

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "tdat keeps a memory"
        x, mass = batch.x, self.mass(clock)

        def loss(logits: Logits, y: Labels, mass: float) -> Tensor:
            soft = batch.soft if batch.soft is not None else smooth(y, logits.shape[1], mass, precise(logits).dtype)
            return cross_entropy(logits, soft)

        start = threat.corner(x) if self.phase(clock)[0] else memory["delta"].read(batch)
        ascent = ascend(
            model, x, batch.y, threat, start=start, steps=1, step_size=threat.eps, keep_graph=True,
            objective=lambda logits, y: loss(logits, y, mass),
        )  # fmt: skip
        memory["delta"].write(batch, ascent.delta)
        logits = model(x + ascent.delta)
        before = precise(ascent.first_logits)
        doubt = (1 - before.softmax(1).gather(1, batch.y[:, None])[:, 0]).tanh()
        distance = ((before - precise(logits)).square().sum(1) * doubt).mean()
        mixed = mass + (1 - mass) / logits.shape[1]
        terms = {"classify": batch.mean(loss(logits, batch.y, mixed)), "proximity": self.lam * distance}
        return Losses(terms, logits, {"proximity": distance.detach()})
