"""Checks whether a network's BatchNorm statistics fit the images."""

import torch
from torch import Tensor, nn

from regmix.types import Images

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def misfit(model: nn.Module, x: Images) -> float | None:
    """The mean distance between the images' channel means and BatchNorm's running means, in standard deviations.

        mean over channels of all layers of |mean(input) - running mean| / sqrt(running variance + eps)

    It is computed in evaluation mode; None without BatchNorm layers. It is small for images like the training images,
    and large if the normalisation, a stride or a shortcut differs from that in training.
    """
    layers = [module for module in model.modules() if isinstance(module, NORMS) and module.running_mean is not None]
    shifts: list[Tensor] = []

    def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        means = inputs[0].detach().transpose(0, 1).flatten(1).mean(1)
        shifts.append((means - layer.running_mean).abs() / (layer.running_var + layer.eps).sqrt())

    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return float(torch.cat(shifts).mean()) if shifts else None
