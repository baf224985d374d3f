"""FAB: walks along the decision boundary towards the clean image."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regmix.attacks.base import Screened, fooled, likeliest_wrong
from regmix.attacks.minimal import within
from regmix.attacks.plane import to_plane
from regmix.attacks.rows import Rows
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import LEAST, Images, Labels, Model, PerExample

OVERSHOOT, BACK, PULL = 1.05, 0.9, 0.1
CLOSE = 1.1
"""Under screening: if a run on rough logits comes within this distance in units of eps, a run on exact logits
follows."""
DENIED = 1.0001
"""In units of eps: the smallest distance that counts for a misclassification by the rough logits alone."""


@dataclass(frozen=True)
class Fab:
    """Targeted Fast Adaptive Boundary: projects onto the linearised decision boundary, for one wrong class t at a time.

    The boundary is the hyperplane z_t - z_y = 0, linearised at x_k, inside the box [0, 1]:

        d, d_0  = shortest vectors from x_k and from x to the hyperplane
        a       = min(0.1, ||d|| / (||d|| + ||d_0||))
        x_{k+1} = clip((1 - a) (x_k + 1.05 d) + a (x + 1.05 d_0))

    A misclassified x_{k+1} within eps ends the search for its row. A misclassified one outside eps is moved a tenth of
    the way back to x. Rows for which none is found within eps are returned unperturbed; `shortest` goes on to the last
    step.

    Source: arXiv 1907.02044 and AutoAttack's targeted version. Deviation: that version searches for the nearest
    adversarial example and compares its distance with eps at the end.
    """

    targets: int = 9
    """How many wrong classes to target, the likeliest first; at most C - 1 of C classes are used."""
    steps: int = 100
    together: int = 0
    """How many (image, target) pairs to attack at once; 0 means as many as there are images."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return 4 * self.steps * self.targets

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return within(self._search(model, x, y, threat), x, threat)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self._search(model, x, y, replace(threat, eps=LEAST))  # type: ignore[type-var]

    def _search(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        """The smallest perturbations found; the search ends for a row that is misclassified within eps."""
        rows, together, close = Rows(x), self.together or len(x), []

        def run(model: Model, pairs: Tensor, wrong: Tensor) -> PerExample:
            delta, nearest = _walk(model, x[pairs], y[pairs], wrong, threat, self.steps)
            rows.settle(pairs, nearest <= threat.eps, delta, nearest)
            return nearest / threat.eps

        with borrowed(model):
            with torch.no_grad():
                targets = likeliest_wrong(model(x), y, self.targets)
            for pairs, wrong in rows.pairs(targets, together):
                near = run(model, pairs, wrong) <= CLOSE
                close.append((pairs[near], wrong[near]))
            if isinstance(model, Screened) and model.repeats:
                for pairs, wrong in rows.again(close, together):
                    run(model.exact, pairs, wrong)
        return rows.delta


def _walk(model: Model, x: Images, y: Labels, wrong: Labels, threat: Threat, steps: int) -> tuple[Images, PerExample]:
    """Perturbations [B, C, H, W], and the smallest distance [B] at which each row was misclassified.

    A distance within eps is confirmed by the exact model; beyond eps rough logits suffice. A misclassification within
    eps that the exact model does not confirm counts as just beyond eps.
    """
    rows, at = Rows(x), x
    nearest = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(at)
            value = (logits.gather(1, wrong[:, None]) - logits.gather(1, y[:, None]))[:, 0]
            (w,) = torch.autograd.grad(value.sum(), at)
        at, value = at.detach(), value.detach().to(x.dtype)
        # The hyperplane is {z : w (z - at) + value = 0}.
        from_clean = value + (w * (x - at)).sum((1, 2, 3))
        gaps = torch.cat([-value, -from_clean])
        near, far = to_plane(torch.cat([at, x]), torch.cat([w, w]), gaps, threat).chunk(2)
        near_length, far_length = threat.norm(near).clamp_min(1e-8), threat.norm(far).clamp_min(1e-8)
        pull = (near_length / (near_length + far_length)).clamp_max(PULL).view(-1, 1, 1, 1)
        at = ((1 - pull) * (at + OVERSHOOT * near) + pull * (x + OVERSHOOT * far)).clamp(0, 1)
        with torch.no_grad():
            logits = model(at)
        distance = threat.norm(at - x)
        lead = margin(logits, y)
        crossed = ~(lead <= 0)
        out = crossed & (distance <= threat.eps)
        if isinstance(model, Screened) and out.any():
            out[out.clone()] = fooled(model, at[out], lead[out], y[out])
        seen = torch.where(out, distance, distance.clamp_min(DENIED * threat.eps))
        closer = crossed & (seen < nearest[rows.left])
        nearest[rows.left] = torch.where(closer, seen, nearest[rows.left])
        rows.delta[rows.left] = torch.where(closer.view(-1, 1, 1, 1), at - x, rows.delta[rows.left])
        back = torch.where(crossed.view(-1, 1, 1, 1), x + BACK * (at - x), at)
        x, y, wrong, at = rows.leave(out, at - x, x, y, wrong, back)
        if not len(x):
            break
    return rows.delta, nearest
