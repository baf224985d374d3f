"""The running statistics of a model's BatchNorm layers as one vector, because they are many and short."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Statistics:
    """Reads and writes all floating-point buffers of a model that stays on its device from now on."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]

    def read(self) -> Float[Tensor, "numbers"] | None:
        """A copy of them, one after another; None where there are none."""
        return torch.cat([buffer.flatten() for buffer in self._buffers]) if self._buffers else None

    @torch.no_grad()
    def write(self, values: Float[Tensor, "numbers"]) -> None:
        """Puts back what `read` gave."""
        parts = torch.split(values, [buffer.numel() for buffer in self._buffers])
        torch._foreach_copy_(
            self._buffers, [part.view_as(buffer) for part, buffer in zip(parts, self._buffers, strict=True)]
        )
