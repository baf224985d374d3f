"""HopSkipJump: an attack that asks only for decisions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from regmix.attacks.base import borrowed
from regmix.threats import L1, L2, Threat
from regmix.types import Images, Labels, Model, UserError

Decide = Callable[[Images], Tensor]
"""Images to bool: are they misclassified?"""


@dataclass(frozen=True)
class HopSkipJump:
    """Walks along the decision boundary towards the image, by directions estimated from decisions at random points.

    A round: bisect between the image and the misclassified point down to the boundary; estimate the boundary's normal
    from `samples sqrt(round)` noisy points, their decisions centred by their mean; step along it by distance /
    sqrt(round), halved until the point is misclassified. It begins at a uniformly random image that is misclassified,
    and rows for which a hundred of them are not come back unperturbed, as do those whose distance stays above eps.
    Source: arXiv 1904.02144.
    """

    queries: int = 5000
    """Decisions per image, at most."""
    samples: int = 100
    """Noisy points in the first round."""
    seed: int = 0
    """Seeds the first points and the noise."""

    @property
    def passes(self) -> int:
        return self.queries

    def check(self, threat: Threat) -> None:
        if isinstance(threat, L1):
            raise UserError("hop-skip-jump is made for L-inf and L2; under L1 use square")

    @torch.no_grad()
    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        self.check(threat)
        generator = torch.Generator(x.device).manual_seed(self.seed)
        delta = torch.zeros_like(x)
        with borrowed(model):
            for row in range(len(x)):
                image = x[row]

                def wrong(images: Images, label: Tensor = y[row]) -> Tensor:
                    return model(images).argmax(1) != label

                found = self._walk(wrong, image, threat, generator)
                if found is not None and threat.norm((found - image)[None]) <= threat.eps:
                    delta[row] = found - image
        return delta

    def _walk(self, wrong: Decide, x: Tensor, threat: Threat, generator: Generator) -> Tensor | None:
        def noise(count: int) -> Images:
            return torch.rand((count, *x.shape), generator=generator, dtype=x.dtype, device=x.device)

        trials = noise(100)
        hits = wrong(trials)
        if not hits.any():
            return None
        at, used, size = trials[hits][0], 100, x.numel()
        euclid = isinstance(threat, L2)
        # The step at which a bisection ends, and the radius of the noise, in the paper's theta and delta.
        theta = 1 / (size * size**0.5) if euclid else 1 / size**2
        at, asked = _bisect(wrong, x, at, threat, theta)
        used, number = used + asked, 0
        while True:
            number += 1
            distance = float(threat.norm((at - x)[None]))
            if distance <= threat.eps:
                return at
            count = int(self.samples * number**0.5)
            if used + count > self.queries:
                return None
            radius = 0.1 if number == 1 else (size**0.5 * theta * distance if euclid else size * theta * distance)
            around = torch.randn((count, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
            if not euclid:
                around = 2 * noise(count) - 1
            around = around / around.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            points = (at + radius * around).clamp(0, 1)
            sign = wrong(points).to(x.dtype) * 2 - 1
            mean = sign.mean()
            centred = sign if mean.abs() == 1 else sign - mean
            normal = (centred.view(-1, 1, 1, 1) * (points - at) / radius).mean(0)
            normal = threat.direction(normal[None])[0]
            step = distance / number**0.5
            used += count
            while not wrong((at + step * normal).clamp(0, 1)[None])[0]:
                step, used = step / 2, used + 1
                if used > self.queries or step < 1e-9:
                    return None
            at, asked = _bisect(wrong, x, (at + step * normal).clamp(0, 1), threat, theta)
            used += asked + 1


def _bisect(wrong: Decide, x: Tensor, at: Tensor, threat: Threat, theta: float) -> tuple[Tensor, int]:
    """The misclassified point nearest to x on the way from `at`: a line for L2, a shrinking box for L-inf."""
    euclid = isinstance(threat, L2)
    low, high = 0.0, 1.0 if euclid else float(threat.norm((at - x)[None]))
    end = theta if euclid else min(high * theta, theta)

    def point(share: float) -> Tensor:
        return x + share * (at - x) if euclid else x + (at - x).clamp(-share, share)

    asked = 0
    while high - low > max(end, 1e-6):
        middle, asked = (low + high) / 2, asked + 1
        if wrong(point(middle)[None])[0]:
            high = middle
        else:
            low = middle
    return point(high), asked
