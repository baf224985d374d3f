"""Random numbers that public code and this package draw alike."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from public_code.net import IMAGES
from torch import Tensor


class Tape:
    """Uniform and normal numbers by kind and count, so that the order of draws of other sizes does not matter."""

    def __init__(self, mirrored: bool = False) -> None:
        self._generators: dict[tuple[str, int], torch.Generator] = {}
        self._whole: dict[int, Tensor] = {}
        self.mirrored = mirrored

    def draw(self, kind: str, count: int) -> Tensor:
        if count == 2 * IMAGES:  # noise for two batches at once
            return torch.cat([self.draw(kind, IMAGES), self.draw(kind, IMAGES)])
        seed = 2 * count + (kind == "normal")
        generator = self._generators.setdefault((kind, count), torch.Generator().manual_seed(seed))
        values = _DRAW[kind](count, generator=generator, dtype=torch.float64)
        return 1 - values if self.mirrored and kind == "uniform" else values

    def fill(self, tensor: Tensor, low: float, high: float) -> Tensor:
        """Fills a tensor; a channel of a larger tensor is filled as a draw of the larger one would fill it."""
        if tensor.is_meta:
            return tensor
        base = tensor._base
        if base is not None and base.ndim == 4 and base.numel() == base.shape[1] * tensor.numel():
            channel = tensor.storage_offset() // base[0, 0].numel()
            if channel == 0:
                self._whole[id(base)] = self.draw("uniform", base.numel()).view(base.shape)
            values = self._whole[id(base)][:, channel]
        else:
            values = self.draw("uniform", tensor.numel()).view(tensor.shape)
        with torch.no_grad():
            return tensor.copy_(low + (high - low) * values)


_DRAW = {"uniform": torch.rand, "normal": torch.randn}  # as they are when nothing is replaced


def shape_of(size: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size


@contextlib.contextmanager
def given_numbers(tape: Tape) -> Iterator[None]:
    """Lets torch, numpy and random draw from the tape; permutations are identities, whole numbers in the middle."""

    def rand(*size: Any, **_: Any) -> Tensor:
        shape = shape_of(size)
        return tape.draw("uniform", int(np.prod(shape))).view(shape)

    def randn(*size: Any, **_: Any) -> Tensor:
        shape = shape_of(size)
        return tape.draw("normal", int(np.prod(shape))).view(shape)

    def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0, **_: Any) -> Tensor:
        return tape.fill(tensor, low, high)

    def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor:
        with torch.no_grad():
            return tensor.copy_(mean + std * tape.draw("normal", tensor.numel()).view(tensor.shape))

    def numpy_uniform(low: float = 0.0, high: float = 1.0, size: Any = ()) -> Any:
        shape = shape_of((size,))
        return low + (high - low) * tape.draw("uniform", int(np.prod(shape))).view(shape).numpy()

    replaced: list[tuple[Any, str, Any]] = [
        (torch, "rand", rand),
        (torch, "rand_like", lambda like, **_: rand(tuple(like.shape))),
        (torch, "randn", randn),
        (torch, "randn_like", lambda like, **_: randn(tuple(like.shape))),
        (torch, "randperm", lambda count, **_: torch.arange(count)),
        (torch.Tensor, "uniform_", uniform_),
        (torch.Tensor, "normal_", normal_),
        (np.random, "uniform", numpy_uniform),
        (np.random, "permutation", np.arange),
        (random, "randint", lambda low, high: (low + high) // 2),
        (random, "getrandbits", lambda bits: 0),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, new in replaced:
            stack.enter_context(mock.patch.object(owner, name, new))
        yield
