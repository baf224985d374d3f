"""Checks of a model before a long evaluation: what would make its numbers meaningless, and what to do about it."""

from collections.abc import Iterator

import torch
from torch import nn

from regmix.attacks import Eot, borrowed
from regmix.evaluation.one_answer import above_largest_class
from regmix.evaluation.outcomes import wilson
from regmix.objectives import cross_entropy
from regmix.types import Images, Labels, Model, UserError

# Channel means and deviations that models are often given outside of themselves: CIFAR-10's and ImageNet's.
USUAL = (((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def preflight(model: Model, x: Images, y: Labels) -> list[str]:
    """One line per finding, with what to do; empty if nothing is wrong.

    The model's mode, gradients and statistics stay as they were. x: some images in [0, 1]; y: their labels.

    Raises:
        UserError: the model cannot be evaluated at all: it fails, or has fewer classes than there are labels, or its
            output is no [B, classes] of finite numbers, or the images lie outside [0, 1].
    """
    if x.min() < 0 or x.max() > 1:
        raise UserError(
            f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; "
            "give them in [0, 1] and let the model normalise"
        )
    with borrowed(model), torch.no_grad():
        try:
            logits = model(x)
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the model fails on {x.dtype} images {list(x.shape)} on {x.device}: {first}") from None
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(x):
            shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise UserError(f"the model returns {shape} for {len(x)} images; it must return logits [{len(x)}, classes]")
        if not logits.isfinite().all():
            raise UserError("the model's logits are not finite; an accuracy would mean nothing")
        if int(y.max()) >= logits.shape[1]:
            raise UserError(
                f"labels reach {int(y.max())} but the model has {logits.shape[1]} classes; "
                "check that data and model belong together"
            )
        return list(_findings(model, x, y, logits))


def _findings(model: Model, x: Images, y: Labels, logits: torch.Tensor) -> Iterator[str]:
    size = float(logits.abs().max())
    if float((model(x) - logits).abs().max()) > 1e-5 * size:
        if isinstance(model, Eot):
            yield f"the model is random: attacks and verdicts are about the mean of {model.draws} passes, which differs"
        else:
            yield "the model is random: two passes differ; use --draws 20, so that attacks climb the mean of its logits"
    elif len(x) > 1 and float((model(x[: len(x) // 2]) - logits[: len(x) // 2]).abs().max()) > 1e-3 * size:
        yield "an image's output depends on the others in its batch (batch statistics?): no verdict per image holds"
    total = logits.sum(1)
    if logits.min() >= 0 and float((total - 1).abs().max()) < 1e-3:
        yield "the outputs are probabilities: their gradients vanish and attacks look weak; return logits instead"
    right = float((logits.argmax(1) == y).double().mean())
    if x.shape[1] == 3:
        for mean, std in USUAL:
            m, s = (torch.tensor(values).to(x).view(1, 3, 1, 1) for values in (mean, std))
            outside, twice = ((model(z).argmax(1) == y).double().mean() for z in ((x - m) / s, x * s + m))
            if outside > right + 0.2:
                yield (
                    f"accuracy is {100 * right:.0f}% on images in [0, 1] but {100 * outside:.0f}% on normalised ones: "
                    "put the normalisation inside the model"
                )
                return
            if twice > right + 0.2:
                yield (
                    f"accuracy is {100 * right:.0f}%, and {100 * twice:.0f}% if one normalisation is undone: "
                    "does the model normalise twice?"
                )
                return
    hits = logits.argmax(1) == y
    if len(x) >= 50 and not above_largest_class(hits, y):
        low, high = (100 * end for end in wilson(int(hits.sum()), len(x)))
        yield (
            f"accuracy is {100 * right:.0f}% (95% interval {low:.0f}% to {high:.0f}%), hardly above chance: the "
            f"most frequent class is {100 * int(y.bincount().max()) / len(y):.0f}% of these {len(x)} images; "
            "check the order of the classes, the weights and the normalisation"
        )


def zero_gradients(model: Model, x: Images, y: Labels) -> float:
    """The share of images at which the cross-entropy's gradient is zero or not finite, in evaluation mode."""
    with borrowed(model), torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        value = cross_entropy(model(images), y).sum()
        if not value.requires_grad:
            return 1.0
        (gradient,) = torch.autograd.grad(value, images, allow_unused=True)
    if gradient is None:
        return 1.0
    flat = gradient.flatten(1)
    return float(((flat == 0).all(1) | ~flat.isfinite().all(1)).double().mean())


def in_train_mode(model: Model) -> bool:
    """Whether a module of the model is in train mode; it is evaluated in evaluation mode all the same."""
    return isinstance(model, nn.Module) and any(module.training for module in model.modules())
