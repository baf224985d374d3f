"""How flat the loss is around images and weights, in numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from regmix.attacks import ascend
from regmix.evaluation import hessian
from regmix.evaluation.answers import ask, gradient_fault
from regmix.evaluation.hessian import losses, slices
from regmix.objectives import cross_entropy
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat, check_threat
from regmix.types import Images, Labels, PerExample, as_batch, check_values, require

STEPS = 20
"""Steps of the search for the largest linearity error, of eps / 4 each."""


@dataclass(frozen=True, eq=False)
class Flatness:
    """How flat the cross-entropy L is around N images and around the weights, in evaluation mode.

    Tensors are float64 (bool) on the CPU, one value per image. A network of ReLUs is linear in pieces. Its derivatives
    are those of the piece that the image or the weights lie in: second derivatives show how the softmax bends
    the loss there and know nothing of the kinks between pieces, so that the Hessian in the image is J' (diag p - pp') J
    with the logits' Jacobian J, never negative, of a rank below the number of classes. Only `rise` and `linearity`,
    which look at a distance, see the kinks.

    The values in the weights depend on how a network is written: scaling the weights before a normalisation
    changes them, not the function (arXiv 1703.04933). Compare them only between networks of one architecture.
    """

    rise: Float[Tensor, "images"]
    """Mean of L(P[x + d]) - L(x) over random d on the surface of the ball: for Linf, random signs times eps. P clips to
    the image's range. d is drawn in pairs +-d, which cancels the gradient's part of the noise."""
    gradient_l1: Float[Tensor, "images"]
    """||grad_x L(x)||_1, the loss's slope along its sign."""
    gradient_l2: Float[Tensor, "images"]
    """||grad_x L(x)||_2."""
    linearity: Float[Tensor, "images"]
    """Local linearity error: the largest |L(x + d) - L(x) - d . grad_x L(x)| over the threat's set (arXiv 1907.02610),
    as far as 20 steps of projected ascent from a random start and from its opposite find it: a lower bound."""
    input_eigenvalue: Float[Tensor, "images"]
    """Largest algebraic eigenvalue of the Hessian of L in the image; a lower bound where it has not converged."""
    input_converged: Bool[Tensor, "images"]
    weight_eigenvalue: float
    """Largest algebraic eigenvalue ("sharpness") of the Hessian of the mean of L over the N images, in all parameters,
    without weight decay; a lower bound if it has not converged."""
    weight_converged: bool
    weight_trace: float
    """Hutchinson's estimate of the trace of the same Hessian."""
    weight_trace_error: float
    """Standard error of this estimate; it covers the random probes, not the choice of the images."""


def flatness(
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: Threat,
    seed: int = 0,
    *,
    draws: int = 64,
    probes: int = 32,
    batch_size: int = 100,
) -> Flatness:
    """Measures how flat the loss is around images and weights.

    The model's mode, parameters, gradients and buffers stay as they were. The random numbers do not depend on
    `batch_size`. An eigenvalue counts as converged if its residual is below 1e-4 of it. A product with the
    Hessian in the weights passes over all images; about 50 to 250 are needed.

    Args:
        x: images [N, C, H, W] in [0, 1], float32 or float64 like the model.
        y: class indices [N].
        threat: its eps is the radius of `rise` and `linearity`.
        draws: random directions per image for `rise`; an even number.
        probes: random vectors for the trace; its standard error falls with their root.
        batch_size: images in memory at a time, with the graph of their second derivatives.

    Raises:
        UserError: images, labels or model do not fit; an image's logits depend on chance or on the rest of its batch;
            or the model cannot be differentiated twice, or not to finite numbers.
    """
    check_threat(threat)
    require(draws >= 2 and draws % 2 == 0, f"draws is {draws}; directions come in pairs: give an even number from 2")
    require(probes >= 2, f"probes is {probes}; a standard error needs at least 2")
    with measurable(model, x, y, batch_size):
        hessian.check(model, x[:2], y[:2])
        generator = torch.Generator(x.device).manual_seed(seed)
        rise = _rise(model, x, y, threat, draws // 2, batch_size, generator)
        start = threat.project(threat.uniform(x, generator), x)
        vectors = torch.empty_like(x).normal_(generator=generator)
        parts = []
        for at in slices(len(x), batch_size):
            images, labels = x[at], y[at]
            times = hessian.in_images(model, images, labels)
            largest = hessian.largest_in_images(times, vectors[at])
            del times  # and the graph with it
            gradient, linearity = _linearity(model, images, labels, threat, start[at])
            flat = gradient.flatten(1).double()
            parts.append((flat.abs().sum(1), flat.norm(dim=1), linearity, *largest))
        for parameter in model.parameters():
            parameter.requires_grad_(True)  # until `measurable` ends
        times = hessian.in_weights(model, x, y, batch_size)
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        sharpness = hessian.largest_in_weights(times, torch.empty_like(weights).normal_(generator=generator))
        trace = hessian.trace(times, (hessian.signs(weights, generator) for _ in range(probes)))
    l1, l2, linearity, values, converged = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return Flatness(rise.cpu(), l1, l2, linearity, values, converged, *sharpness, *trace)


@contextmanager
def measurable(model: nn.Module, x: Images, y: Labels, batch_size: int) -> Iterator[None]:
    """Checks model and data, and borrows the model (see `borrowed`) for the length of the block.

    Attention is computed by the one implementation that torch can differentiate twice.

    Raises:
        UserError: see `flatness`.
    """
    batch = as_batch((x, y))
    require(batch.soft is None, "labels are probabilities; the flatness of the loss needs class indices [N]")
    check_values(batch)
    require(batch_size >= 1, f"batch_size is {batch_size}; it must be at least 1")
    require(any(True for _ in model.parameters()), "the model has no parameters, so its loss has no Hessian in them")
    with borrowed(model), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        with torch.no_grad():
            for at in slices(len(x), batch_size):
                classes = ask(model, x[at]).shape[1]
                require(int(y[at].max()) < classes, f"labels reach {int(y.max())} but the model has {classes} classes")
            some = x[: min(len(x), batch_size)]
            first, again, alone = ask(model, some), ask(model, some), ask(model, some[:1])
            size = float(first.abs().max())
            random = float((first - again).abs().max()) > 1e-5 * size
            require(not random, "the model is random: two passes differ; switch its noise off to measure flatness")
            mixed = float((first[:1] - alone).abs().max()) > 1e-3 * size
            require(not mixed, "an image's logits depend on the others in its batch, so no number per image is right")
        fault = gradient_fault(model, x[:2])
        require(fault is None, f"{fault}; flatness needs the loss's derivatives")
        yield


@torch.no_grad()
def _rise(
    model: nn.Module, x: Images, y: Labels, threat: Threat, pairs: int, batch_size: int, generator: Generator
) -> PerExample:
    """The mean of L(P[x + d]) - L(x) over pairs of directions d and -d."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(pairs):
        drawn = threat.corner(x, generator)
        for at in slices(len(x), batch_size):
            for d in (drawn[at], -drawn[at]):
                total[at] += losses(model, x[at] + threat.project(d, x[at]), y[at])
    before = torch.cat([losses(model, x[at], y[at]) for at in slices(len(x), batch_size)])
    return total / (2 * pairs) - before


def _linearity(
    model: nn.Module, x: Images, y: Labels, threat: Threat, start: Tensor
) -> tuple[Images, Float[Tensor, "batch"]]:
    """The gradient at x, and the largest |L(x + d) - L(x) - d . gradient| among the iterates of an ascent."""
    images = x.detach().clone().requires_grad_()
    loss = losses(model, images, y)
    (gradient,) = hessian.gradients(loss.sum(), [images])
    loss = loss.detach()

    def logits_and_rise(images: Images) -> Tensor:
        """The logits, and as a last column what the loss would rise by if it were linear."""
        rise = ((images - x) * gradient).flatten(1).sum(1, dtype=torch.float64)
        return torch.cat([model(images).double(), rise[:, None]], 1)

    def error(output: Tensor, labels: Labels) -> Tensor:
        return (cross_entropy(output[:, :-1], labels) - loss - output[:, -1]).abs()

    worst = torch.zeros_like(loss)
    for delta in (start, threat.project(-start, x)):  # a convex loss has two peaks, one on each side of x
        for _ in range(STEPS + 1):
            ascent = ascend(
                logits_and_rise, x, y, threat, start=delta, steps=1, step_size=threat.eps / 4, objective=error
            )
            delta, worst = ascent.delta, torch.maximum(worst, error(ascent.first_logits, y))
    return gradient, worst
