"""HopSkipJump: an attack that asks only for decisions."""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from regmix.attacks.attempt import Attempt
from regmix.attacks.boundary import FINEST, Decide, bisect, first_point, normal_at
from regmix.attacks.minimal import within
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, L2, Threat
from regmix.types import LEAST, Images, Labels, Model, UserError


@dataclass(frozen=True)
class HopSkipJump:
    """Walks along the decision boundary towards the image, by directions estimated from decisions at random points.

    A round: bisect between the image and the misclassified point down to the boundary; estimate the boundary's normal
    from `samples sqrt(round)` noisy points, their decisions centred by their mean; step along it by distance /
    sqrt(round), halved until the point is misclassified.

    The start is the nearest of some boundary points, on the lines from the image to images of the batch that the model
    puts into another class than the label, and to uniform noise. A row for which neither is misclassified is not
    attacked (see `attempt`). Rows whose distance stays above eps come back unperturbed.

    Source: arXiv 1904.02144. Deviations: the paper starts from noise alone. Its bisection ends at a share theta of the
    distance, and its noise is as long as theta says; in float32 the bisection can end no finer than at 1e-6, and the
    noise is as long as that end asks for. With the paper's length, noise on CIFAR-10 moved the image less than the
    bisection's end, and the perturbations stayed longer.
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

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self.attempt(model, x, y, threat).delta

    def attempt(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """A row for which no misclassified start is found is not attacked."""
        delta, attacked = self._search(model, x, y, threat)
        return Attempt(within(delta, x, threat), attacked)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self._search(model, x, y, replace(threat, eps=LEAST)).delta  # type: ignore[type-var]

    @torch.no_grad()
    def _search(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """The smallest perturbations found; the walk ends for a row that is misclassified within eps."""
        self.check(threat)
        generator = torch.Generator(x.device).manual_seed(self.seed)
        delta, attacked = torch.zeros_like(x), torch.ones_like(y, dtype=torch.bool)
        with borrowed(model):
            seen = model(x).argmax(1)
            for row in range(len(x)):
                image = x[row]

                def wrong(images: Images, label: Tensor = y[row]) -> Tensor:
                    return model(images).argmax(1) != label

                begun, found = self.walk(wrong, image, x[seen != y[row]], threat, generator)
                attacked[row] = begun
                if found is not None:
                    delta[row] = found - image
        return Attempt(delta, attacked)

    def walk(
        self, wrong: Decide, x: Tensor, others: Images, threat: Threat, generator: Generator
    ) -> tuple[bool, Tensor | None]:
        """Whether there was a start for the image x [C, H, W], and the nearest misclassified point at the end.

        others: misclassified images, the model's answers about which have been paid for by one query.
        """
        at, used = first_point(wrong, x, others, threat, generator)
        if at is None:
            return False, None
        size, euclid = x.numel(), isinstance(threat, L2)
        # The paper's theta: the step at which a bisection ends.
        theta = 1 / (size * size**0.5) if euclid else 1 / size**2
        at, asked = bisect(wrong, x, at, threat, theta)
        used, number = used + asked, 0
        while True:
            number += 1
            distance = float(threat.norm((at - x)[None]))
            if distance <= threat.eps:
                return True, at
            count = int(self.samples * number**0.5)
            if used + count > self.queries:
                return True, at
            # The paper's radius, of the theta at which the bisection has really ended.
            ended = max(theta, FINEST if euclid else FINEST / distance)
            radius = 0.1 if number == 1 else (size**0.5 if euclid else size) * ended * distance
            normal = normal_at(wrong, at, radius, count, euclid, generator)
            normal = threat.direction(normal[None])[0]
            step, used = distance / number**0.5, used + count
            while not wrong((at + step * normal).clamp(0, 1)[None])[0]:
                step, used = step / 2, used + 1
                if used > self.queries or step < 1e-9:
                    return True, at
            at, asked = bisect(wrong, x, (at + step * normal).clamp(0, 1), threat, theta)
            used += asked + 1
