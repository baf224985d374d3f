"""BatchNorm with statistics over the batches of all processes."""

import torch
from torch import Tensor, nn

from regmix.runtime import processes


def synced(model: nn.Module, device: torch.device) -> nn.Module:
    """Makes every BatchNorm of a model compute its statistics over all processes.

    On CUDA it is torch's SyncBatchNorm, which takes CUDA tensors only; elsewhere `SyncedBatchNorm`, the same formula.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
    return model


class SyncedBatchNorm(nn.BatchNorm2d):
    """BatchNorm with mean m and variance v of each channel over all processes.

    (x - m) / sqrt(v + eps) * weight + bias
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = processes.total(torch.tensor(x.numel() / x.shape[1], dtype=torch.float64, device=x.device)).to(x.dtype)
        mean = _total(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _total(centred.square().sum((0, 2, 3))) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), share)
        normal = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.weight is None:
            return normal
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def _total(values: Tensor) -> Tensor:
    summed: Tensor = processes.Total.apply(values)  # type: ignore[no-untyped-call]
    return summed
