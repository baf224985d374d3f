"""DeepFool: steps to the nearest boundary of the linearised model until the class changes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.base import fooled, likeliest_wrong
from regmix.attacks.malt import linearised
from regmix.attacks.minimal import within
from regmix.attacks.plane import to_plane
from regmix.attacks.rows import Rows
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, Threat
from regmix.types import Images, Labels, Model, UserError


@dataclass(frozen=True)
class DeepFool:
    """Walks to the nearest boundary of the model linearised at the present point, until the point is misclassified.

        t       = argmin_t (z_y - z_t) / ||grad(z_t - z_y)||_*,   r = the shortest step to z_t - z_y = 0
        x_{k+1} = x_k + r,   and asked is x + (1 + overshoot) (x_{k+1} - x)

    It is cheap and its perturbations are not the smallest ones. Source: arXiv 1511.04599. Deviation: the step is the
    shortest one inside the image's range.

    Raises:
        UserError: the threat is L1.
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 9
    """How many wrong classes to look at, the likeliest at the image."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return self.steps * (2 + 2 * self.candidates)

    def check(self, threat: Threat) -> None:
        if isinstance(threat, L1):
            raise UserError("deepfool is made for L-inf and L2; under L1 use fmn")

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return within(self.shortest(model, x, y, threat), x, threat)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        self.check(threat)
        rows, at = Rows(x), x
        with borrowed(model):
            with torch.no_grad():
                logits = model(x)
                wrong = likeliest_wrong(logits, y, self.candidates)
                state: tuple[Tensor, ...] = x, y, wrong, at
                # A row that is misclassified without a perturbation leaves with 0.
                x, y, wrong, at = rows.leave(fooled(model, x, margin(logits, y), y), torch.zeros_like(x), *state)
            for _ in range(self.steps):
                if not len(x):
                    break
                at = at + self._step(model, at, y, wrong, threat)
                tried = (x + (1 + self.overshoot) * (at - x)).clamp(0, 1)
                with torch.no_grad():
                    out = fooled(model, tried, margin(model(tried), y), y)
                x, y, wrong, at = rows.leave(out, tried - x, x, y, wrong, at)
        return rows.delta

    def _step(self, model: Model, at: Images, y: Labels, wrong: Tensor, threat: Threat) -> Images:
        """The shortest step from `at` to the nearest linearised boundary inside [0, 1]."""
        nearest = torch.full_like(at[:, 0, 0, 0], float("inf"))
        normal, gap = torch.zeros_like(at), torch.zeros_like(nearest)
        for lead, gradient, distance in linearised(model, at, y, wrong, threat):
            nearer = distance.abs() < nearest
            nearest, gap = torch.where(nearer, distance.abs(), nearest), torch.where(nearer, lead, gap)
            normal = torch.where(nearer.view(-1, 1, 1, 1), gradient, normal)
        return to_plane(at, normal, gap, threat)
