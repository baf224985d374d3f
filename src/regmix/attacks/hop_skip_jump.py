"""HopSkipJump: an attack that asks only for decisions."""

from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from regmix.attacks.attempt import Attempt
from regmix.attacks.boundary import FINEST, bisect, first_point, normal_at
from regmix.attacks.decisions import Decisions, Enough
from regmix.attacks.minimal import within
from regmix.draws import PerImage
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
    """Decisions per image, at most, the one about the image itself among them."""
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
        found = self._search(model, x, y, threat)
        return found._replace(delta=within(found.delta, x, threat))

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self._search(model, x, y, replace(threat, eps=LEAST)).delta  # type: ignore[type-var]

    @torch.no_grad()
    def _search(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """The smallest perturbations found; the walk ends for a row that is misclassified within eps."""
        self.check(threat)
        seeds = PerImage(x, self.seed).keys.tolist()
        delta, attacked = torch.zeros_like(x), torch.ones_like(y, dtype=torch.bool)
        queries = torch.full_like(y, -1)
        with borrowed(model):
            seen = model(x).argmax(1)
            for row in range(len(x)):
                generator = torch.Generator(x.device).manual_seed(seeds[row])
                wrong = Decisions(model, x[row], y[row], threat, self.queries)
                with suppress(Enough):
                    self.walk(wrong, x[row], x[seen != y[row]], threat, generator)
                attacked[row] = wrong.nearest is not None
                if wrong.nearest is not None:
                    delta[row] = wrong.nearest - x[row]
                if wrong.success is not None:
                    queries[row] = wrong.success
        return Attempt(delta, attacked, queries)

    def walk(self, wrong: Decisions, x: Tensor, others: Images, threat: Threat, generator: Generator) -> None:
        """Walks from a start, if there is one, towards the image x [C, H, W].

        others: misclassified images, the model's answers about which have been paid for by one query each.

        Raises:
            Enough: the queries are spent, or a misclassified image within eps was found; `wrong` has the nearest one.
        """
        wrong.known(others)
        at = first_point(wrong, x, others, threat, generator)
        if at is None:
            return
        size, euclid = x.numel(), isinstance(threat, L2)
        # The paper's theta: the step at which a bisection ends.
        theta = 1 / (size * size**0.5) if euclid else 1 / size**2
        at = bisect(wrong, x, at, threat, theta)
        number = 0
        while True:
            number += 1
            distance = float(threat.norm((at - x)[None]))
            if (count := int(self.samples * number**0.5)) > wrong.left:
                return
            # The paper's radius, of the theta at which the bisection has really ended.
            ended = max(theta, FINEST if euclid else FINEST / distance)
            radius = 0.1 if number == 1 else (size**0.5 if euclid else size) * ended * distance
            normal = normal_at(wrong, at, radius, count, euclid, generator)
            normal = threat.direction(normal[None])[0]
            step = distance / number**0.5
            while not wrong((at + step * normal).clamp(0, 1)[None])[0]:
                step /= 2
                if step < 1e-9:
                    return
            at = bisect(wrong, x, (at + step * normal).clamp(0, 1), threat, theta)
