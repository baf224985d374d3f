"""The floating-point buffers of a model, which are BatchNorm's running statistics, as one vector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Statistics:
    """Reads and writes all floating-point buffers at once, because they are many and short.

    The model must stay on its device from now on.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]

    def read(self) -> Float[Tensor, "numbers"] | None:
        """A copy of the buffers, one after another; None if the model has none."""
        return torch.cat([buffer.flatten() for buffer in self._buffers]) if self._buffers else None

    @torch.no_grad()
    def write(self, values: Float[Tensor, "numbers"]) -> None:
        """Writes the values that `read` returned back into the buffers."""
        parts = torch.split(values, [buffer.numel() for buffer in self._buffers])
        torch._foreach_copy_(
            self._buffers, [part.view_as(buffer) for part, buffer in zip(parts, self._buffers, strict=True)]
        )
