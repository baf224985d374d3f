"""Second derivatives of the loss in images and in weights, by products of the Hessian with vectors."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from regmix.objectives import cross_entropy
from regmix.types import Images, Labels, Model, PerExample, UserError, first_line, require

TOLERANCE = 1e-4
"""An eigenvalue has converged if its residual ||H v - value v|| is below this share of it."""
LEAST_STEPS, MOST_STEPS = 5, 60
"""Steps of the Lanczos method for images. A step or two can look converged by chance."""
RESTARTS = 10
"""Restarts of ARPACK for the weights, of about 20 products each."""

Products = Callable[[Tensor], Tensor]
"""Multiplies by a Hessian."""


class Eigenvalues(NamedTuple):
    """The largest algebraic eigenvalue per image; where it has not converged, a lower bound of it."""

    values: PerExample
    converged: Bool[Tensor, "batch"]


class Eigenvalue(NamedTuple):
    """The largest algebraic eigenvalue; if it has not converged, a lower bound of it."""

    value: float
    converged: bool


class Trace(NamedTuple):
    """An estimate of a trace and its standard error."""

    value: float
    error: float


def slices(count: int, size: int) -> list[slice]:
    """0 to count in pieces of at most `size`."""
    return [slice(start, start + size) for start in range(0, count, size)]


def losses(model: Model, x: Images, y: Labels) -> PerExample:
    """The cross-entropy of each image. In float64, because 1 - p is lost in float32 where the model is certain."""
    return cross_entropy(model(x).double(), y)


def in_images(model: Model, x: Images, y: Labels) -> Products:
    """Products with the Hessian of each image's loss in this image: [B, C, H, W] to [B, C, H, W].

    One product serves the whole batch, since an image's loss depends on no other image. The graph of the gradient is
    kept, so that a product costs one backward pass.
    """
    images = x.detach().clone().requires_grad_()
    (gradient,) = gradients(losses(model, images, y).sum(), [images], again=True)
    return lambda vectors: gradients((gradient * vectors).sum(), [images], keep=True)[0]


def in_weights(model: nn.Module, x: Images, y: Labels, batch_size: int) -> Products:
    """Products with the Hessian of the mean loss in all parameters: [n] to [n], in the order of `model.parameters()`.

    The parameters must require gradients. The graph of one batch is in memory at a time.
    """
    weights = list(model.parameters())

    def times(vector: Tensor) -> Tensor:
        parts = torch.split(vector, [w.numel() for w in weights])
        pieces = [part.view_as(w) for part, w in zip(parts, weights, strict=True)]
        total = torch.zeros_like(vector)
        for at in slices(len(x), batch_size):
            first = gradients(losses(model, x[at], y[at]).sum() / len(x), weights, again=True)
            total += _flat(gradients(_dot(first, pieces), weights))
        return total

    return times


def gradients(of: Tensor, inputs: Sequence[Tensor], *, again: bool = False, keep: bool = False) -> list[Tensor]:
    """The gradients of a scalar: differentiable ones with `again`, and with `keep` its graph stays.

    Raises:
        UserError: they do not exist or are not finite.
    """
    remedy = "replace what torch cannot differentiate twice (rounding, custom backward passes, compiled code)"
    if not of.requires_grad:
        raise UserError(f"the model has no second derivatives: its gradient is constant or detached; {remedy}")
    try:
        found = torch.autograd.grad(
            of, inputs, create_graph=again, retain_graph=again or keep, allow_unused=True, materialize_grads=True
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(f"the model has no second derivatives ({first_line(error)}); {remedy}") from None
    if not all(g.isfinite().all() for g in found):
        raise UserError(
            "the model's derivatives are not finite; look for a square root, norm or logarithm of zero in the model"
        )
    return list(found)


def check(model: nn.Module, x: Images, y: Labels) -> None:
    """Compares second derivatives with differences of gradients, in images and in weights, in a copy in float64.

    A custom backward pass may hide from torch that it depends on its input; products would then lack a term, without an
    error. The images are mixed with noise, because images with constant areas lie on kinks (ties of max-pools).

    Raises:
        UserError: they differ, do not exist or are not finite, or the model cannot be copied.
    """
    generator = torch.Generator(x.device).manual_seed(0)
    images = x.detach().double().lerp(torch.empty_like(x, dtype=torch.float64).uniform_(generator=generator), 0.01)
    try:
        model = copy.deepcopy(model).double()
        losses(model, images, y)
    except Exception as error:
        fault = "the model has no copy in float64 to check its second derivatives in"
        raise UserError(f"{fault} ({first_line(error)})") from None
    for variables in ([images], list(model.parameters())):
        for variable in variables:
            variable.requires_grad_(True)
        require(
            _agree(lambda: losses(model, images, y).sum(), variables),
            "the model's second derivatives differ from differences of its gradients; replace custom backward passes "
            "that cannot be differentiated, such as straight-through estimators",
        )


def _agree(loss: Callable[[], Tensor], variables: Sequence[Tensor]) -> bool:
    """Whether the product of the Hessian with the gradient is a difference of gradients. Changes the variables."""
    first = gradients(loss(), variables, again=True)
    length = _flat(first).detach().norm()
    if length == 0:
        return True
    direction = [g.detach() / length for g in first]
    product = _flat(gradients(_dot(first, direction), variables))
    starts = [variable.detach().clone() for variable in variables]

    def gradient(shift: float) -> Tensor:
        with torch.no_grad():
            for variable, start, d in zip(variables, starts, direction, strict=True):
                variable.copy_(start + shift * d)
        return _flat(gradients(loss(), variables))

    # Several steps, since one of them may cross a kink.
    errors = [((gradient(h) - gradient(-h)) / (2 * h) - product).norm() for h in (1e-6, 1e-7, 1e-8)]
    return bool(min(errors) <= 0.01 * product.norm() + 1e-5 * length)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(first, second, strict=True)]).sum()


def signs(like: Tensor, generator: Generator) -> Tensor:
    """Random signs, +1 or -1 with probability 1/2 each."""
    return 2 * torch.empty_like(like).bernoulli_(0.5, generator=generator) - 1


def largest_in_images(times: Products, start: Images) -> Eigenvalues:
    """The largest eigenvalue of every image's Hessian, by the Lanczos method on the whole batch at once.

    All vectors are orthogonalised against all earlier ones, twice, in float64. An image has converged if, for the
    largest Ritz value t with its residual r, r <= TOLERANCE |t|, or if r is no more than rounding, which is so when
    the Krylov space holds all that the start can reach. ARPACK would take one image at a time.

    Args:
        start: one random vector per image.
    """
    q = start.flatten(1).double()
    count, size = q.shape
    steps = min(MOST_STEPS, size)
    basis: list[Tensor] = []
    matrix = q.new_zeros(count, steps, steps)
    values, converged = q.new_zeros(count), torch.zeros(count, dtype=torch.bool, device=q.device)
    length, rounding = torch.linalg.vector_norm(q, dim=1), 10 * torch.finfo(start.dtype).eps
    for step in range(steps):
        basis.append(q / torch.where(length > 0, length, 1.0)[:, None])
        q = times(basis[-1].to(start.dtype).view_as(start)).flatten(1).double()
        matrix[:, step, step] = (q * basis[-1]).sum(1)
        for earlier in basis * 2:
            q = q - (q * earlier).sum(1, keepdim=True) * earlier
        length = torch.linalg.vector_norm(q, dim=1)
        ritz, vectors = torch.linalg.eigh(matrix[:, : step + 1, : step + 1])
        size_of_hessian = ritz.abs().amax(1)
        settled = length <= rounding * size_of_hessian
        if step + 1 >= LEAST_STEPS:
            settled |= length * vectors[:, -1, -1].abs() <= TOLERANCE * ritz[:, -1].abs()
        values = torch.where(converged, values, ritz[:, -1])
        converged |= settled | (step + 1 == size)
        if converged.all():
            break
        if step + 1 < steps:
            matrix[:, step, step + 1] = matrix[:, step + 1, step] = length
    return Eigenvalues(values, converged)


def largest_in_weights(times: Products, start: Tensor) -> Eigenvalue:
    """The largest eigenvalue of the Hessian in the weights, by ARPACK's restarted Lanczos method.

    Args:
        start: a random vector [n].
    """
    best = -math.inf

    def matvec(values: NDArray[np.floating]) -> NDArray[np.floating]:
        nonlocal best
        vector = torch.as_tensor(values.reshape(-1)).to(start)
        product = times(vector)
        best = max(best, float(vector.double() @ product.double()) / float(vector.double().square().sum()))
        found: NDArray[np.floating] = product.cpu().numpy()
        return found

    first = start.cpu().numpy()
    if not matvec(first).any():  # a random vector would not miss anything else than zero
        return Eigenvalue(0.0, True)
    operator = scipy.sparse.linalg.LinearOperator((len(first), len(first)), matvec=matvec, dtype=first.dtype)
    try:
        (value,) = scipy.sparse.linalg.eigsh(
            operator, 1, which="LA", v0=first, tol=TOLERANCE, maxiter=RESTARTS, return_eigenvectors=False
        )
    except scipy.sparse.linalg.ArpackError:
        return Eigenvalue(best, False)
    return Eigenvalue(float(value), True)


def trace(times: Products, probes: Iterator[Tensor]) -> Trace:
    """Hutchinson's estimate of the trace: the mean of z . Hz over random signs z, at least two.

    The standard error is that of this mean.
    """
    draws = torch.tensor([float(z.double() @ times(z).double()) for z in probes], dtype=torch.float64)
    return Trace(float(draws.mean()), float(draws.std()) / math.sqrt(len(draws)))
