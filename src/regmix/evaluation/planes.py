"""The loss over planes through images and through weights, on a grid: what pictures of flatness show."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.func import functional_call

from regmix.evaluation.flatness import measurable
from regmix.evaluation.hessian import gradients, losses, slices
from regmix.threats import Threat, check_threat
from regmix.types import LEAST, MOST, Images, Labels, require


@dataclass(frozen=True, eq=False)
class Plane:
    """The loss on a grid of a plane; float64 on the CPU.

    `loss[..., i, j]` is at `steps[i]` along the second direction and `steps[j]` along the first.
    """

    steps: Float[Tensor, "points"]
    """Positions along both directions, symmetric about 0, in units of the directions' length."""
    loss: Float[Tensor, "*images points points"]


def image_planes(
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: Threat,
    seed: int = 0,
    *,
    points: int = 21,
    reach: float = 1.0,
    batch_size: int = 100,
) -> Plane:
    """The cross-entropy around every image, over the plane of the adversarial and a random direction.

        loss[n, i, j] = L(clip(x_n + s_j eps g_n + s_i r_n, 0, 1)),  s in [-reach, reach]

    g is the threat's steepest direction at x, for Linf the sign of the gradient of L; r is drawn on the surface of the
    ball, for Linf random signs times eps. The two are not orthogonal, but nearly so in many dimensions. Images at the
    border of [0, 1] are clipped, as attacks see them. The model is in evaluation mode and stays as it was.

    Args:
        x: images [N, C, H, W] in [0, 1].
        y: class indices [N].
        points: grid points per direction; odd, so that the image itself is one.
        reach: half the side of the square, in units of eps.

    Raises:
        UserError: see `flatness`.
    """
    check_threat(threat)
    steps = _steps(points, reach)
    with measurable(model, x, y, batch_size):
        random = threat.corner(x, torch.Generator(x.device).manual_seed(seed))
        positions = torch.cartesian_prod(steps, steps)
        parts = []
        for at in slices(len(x), batch_size):
            images = x[at].detach().clone().requires_grad_()
            (gradient,) = gradients(losses(model, images, y[at]).sum(), [images])
            first = threat.eps * threat.direction(gradient, x[at])
            values, several = [], max(1, batch_size // len(first))
            with torch.no_grad():
                for some in slices(len(positions), several):
                    # [points of the plane, 1, 1, 1, 1], to move all images of the slice to several points at once
                    t, s = positions[some].to(x)[:, :, None, None, None, None].unbind(1)
                    there = (x[at] + s * first + t * random[at]).clamp(0, 1)
                    values.append(losses(model, there.flatten(0, 1), y[at].repeat(len(there))).view(len(there), -1))
            parts.append(torch.cat(values).T.reshape(-1, points, points).cpu())
    return Plane(steps, torch.cat(parts))


def weight_plane(
    model: nn.Module,
    x: Images,
    y: Labels,
    seed: int = 0,
    *,
    points: int = 21,
    reach: float = 1.0,
    batch_size: int = 100,
) -> Plane:
    """The mean cross-entropy of the images over the plane of two random directions in the weights (arXiv 1712.09913).

        loss[i, j] = mean_n L(x_n; w + s_j d + s_i e),  s in [-reach, reach]

    d and e are Gaussian and filter-normalised: each filter (the weights of one output channel or neuron) is scaled to
    the length of the network's own filter. As in the paper, directions are 0 for biases and for the weights of
    normalisations, which have less than two dimensions, and BatchNorm keeps its running statistics. The model is in
    evaluation mode and stays as it was.
    """
    steps = _steps(points, reach)
    with measurable(model, x, y, batch_size), torch.no_grad():
        generator = torch.Generator(x.device).manual_seed(seed)
        first, second = _filter_normalised(model, generator), _filter_normalised(model, generator)
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        loss = torch.zeros(points, points, dtype=torch.float64)
        for i, t in enumerate(steps.tolist()):
            for j, s in enumerate(steps.tolist()):
                moved = {name: w + s * first[name] + t * second[name] for name, w in weights.items()}
                there = partial(functional_call, model, moved)
                for at in slices(len(x), batch_size):
                    loss[i, j] += losses(there, x[at], y[at]).sum().cpu() / len(x)
    return Plane(steps, loss)


def _steps(points: int, reach: float) -> Tensor:
    require(points >= 3 and points % 2 == 1, f"points is {points}; give an odd number from 3, so that 0 is one of them")
    require(LEAST <= reach <= MOST, f"reach is {reach}; it must be positive")
    half = torch.arange(points // 2 + 1, dtype=torch.float64) * (reach / (points // 2))
    return torch.cat([-half[1:].flip(0), half])


def _filter_normalised(model: nn.Module, generator: Generator) -> dict[str, Tensor]:
    """A random direction per parameter, with filters as long as the parameter's own."""
    directions = {}
    for name, w in model.named_parameters():
        directions[name] = torch.zeros_like(w)
        if w.ndim >= 2:
            drawn = torch.empty_like(w).normal_(generator=generator)
            filters = (-1, *[1] * (w.ndim - 1))
            own, length = (each.flatten(1).norm(dim=1).view(filters) for each in (w, drawn))
            directions[name] = drawn * (own / length)
    return directions
