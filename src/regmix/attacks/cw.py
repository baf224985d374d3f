"""Carlini and Wagner's attacks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.ascent import ascend
from regmix.attacks.base import fooled
from regmix.attacks.minimal import Shortest, within
from regmix.draws import PerImage
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L2, Threat
from regmix.types import Images, Labels, Model, UserError


@dataclass(frozen=True)
class Cw:
    """PGD on Carlini and Wagner's margin max_{c != y} z_c - z_y, from a uniform random start.

    Papers call it CW under L-inf. It returns the last iterate. Source of the loss: arXiv 1608.04644.
    """

    steps: int = 30
    step_size: float = 0.25
    """In units of eps."""
    seed: int = 0
    """Seed of the random start."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return 3 * self.steps

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        start = threat.project(threat.uniform(x, PerImage(x, self.seed)), x)
        with borrowed(model):
            return ascend(
                model, x, y, threat, start=start, steps=self.steps, step_size=self.step_size * threat.eps,
                objective=margin,
            ).delta  # fmt: skip


@dataclass(frozen=True)
class CwL2:
    """The original L2 attack: minimises the length of the perturbation with Adam and searches over the constant c.

        min_u ||d||^2 + c max(z_y - max_{c' != y} z_c', 0),   x + d = (tanh u + 1) / 2

    Every row has its own c. It is multiplied by 10 until the row is misclassified, and bisected afterwards. Rows whose
    shortest perturbation is longer than eps are returned unperturbed.

    Source: arXiv 1608.04644, with its learning rate 0.01, confidence 0 and budget of 9 searches of 1000 steps.

    Raises:
        UserError: the threat is not L2.
    """

    steps: int = 1000
    searches: int = 9
    lr: float = 0.01
    first_c: float = 0.01

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return 3 * self.steps * self.searches

    def check(self, threat: Threat) -> None:
        """Raises UserError for a threat that is not L2."""
        if not isinstance(threat, L2):
            raise UserError("cw-l2 minimises the L2 length of the perturbation; give an L2 threat, or use cw-30")

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return within(self.shortest(model, x, y, threat), x, threat)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        self.check(threat)
        best = Shortest(x, threat)
        low, c = torch.zeros_like(best.length), torch.full_like(best.length, self.first_c)
        high = torch.full_like(best.length, 1e10)
        with borrowed(model):
            for _ in range(self.searches):
                broken = self._search(model, x, y, c, best)
                low, high = torch.where(broken, low, c), torch.where(broken, c, high)
                c = torch.where(high < 1e9, (low + high) / 2, c * 10)
        return best.delta

    def _search(self, model: Model, x: Images, y: Labels, c: Tensor, best: Shortest) -> Tensor:
        """Runs Adam at fixed c and offers every perturbation to `best`; returns which rows were misclassified."""
        # atanh is infinite for a pixel at 0 or 1; the shift of 1e-6 is far below one grey level.
        u = torch.atanh((2 * x - 1) * (1 - 1e-6)).requires_grad_()
        adam = torch.optim.Adam([u], lr=self.lr)
        broken = torch.zeros_like(y, dtype=torch.bool)
        for _ in range(self.steps):
            with torch.enable_grad():
                images = (u.tanh() + 1) / 2
                logits = model(images)
                square = (images - x).flatten(1).square().sum(1)
                loss = square + c * (-margin(logits, y)).clamp_min(0)
                (u.grad,) = torch.autograd.grad(loss.sum(), u)
            adam.step()
            wrong = fooled(model, images.detach(), margin(logits.detach(), y), y)
            best.offer(images.detach() - x, wrong)
            broken |= wrong
        return broken
