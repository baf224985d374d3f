"""Whether a network's BatchNorm statistics are those of the images that it is shown."""

import torch
from torch import Tensor, nn

from regmix.types import Images

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def misfit(model: nn.Module, x: Images) -> float | None:
    """How far the images' channel means lie from BatchNorm's running means, in standard deviations.

    The mean over all channels of all layers of |mean of the layer's input - running mean| / sqrt(running variance +
    eps), in evaluation mode; None without such layers. Images like those of the training give little; another
    normalisation, stride or shortcut than the weights were trained with gives much.
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
