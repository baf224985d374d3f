"""The features of a model: what its classifier, the linear layer that makes the logits, is given."""

from torch import Tensor, nn

from regmix.types import Images, Logits, UserError


def logits_and_features(model: nn.Module, x: Images) -> tuple[Logits, Tensor]:
    """The logits [B, classes] and the features [B, F], from one forward pass.

    Raises:
        UserError: the logits are not the output of a linear layer on one vector per image.
    """
    calls: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        calls.append((given[0], made))

    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        logits: Tensor = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    features = next((given for given, made in reversed(calls) if made is logits), None)
    if features is None or features.ndim != 2:
        raise UserError(
            "the method needs the model's features, but its logits do not come from an nn.Linear on one vector per "
            "image; end the model with such a layer, or choose another method"
        )
    return logits, features
