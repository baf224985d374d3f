"""Checks before a long evaluation: what would make its numbers meaningless, and what to do about it."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from regmix.attacks import Attack, Eot, Square
from regmix.evaluation.answers import ask, gradient_fault, like_probabilities, needs_gradient, require_gradient
from regmix.evaluation.class_order import other_order
from regmix.evaluation.one_answer import above_largest_class
from regmix.evaluation.outcomes import wilson
from regmix.models import Answers
from regmix.objectives import cross_entropy, precise
from regmix.runtime.borrowed import borrowed
from regmix.types import Images, Labels, Model, UserError, few

LOOKED_AT = 100
"""How many images are enough for these checks."""
RANDOM = "the model is random"
"""Begins the finding that two passes differ."""
CHANCE = "hardly above chance"
"""Part of the finding that the accuracy is as low as that of guessing."""
GAIN = 0.2
"""By how much a remedy must raise the accuracy to be named."""
# Channel means and deviations that models are often given outside of themselves: CIFAR-10's and ImageNet's.
USUAL = (((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def preflight(
    model: Model, x: Images, y: Labels, classes: int | None = None, attacks: Mapping[str, Attack] | None = None
) -> list[str]:
    """One line per finding, with what to do; empty if nothing is wrong.

    The model's mode, gradients and statistics stay as they were. x: some images in [0, 1]; y: their labels.

    Args:
        classes: the number of classes of the data, which must be the number of logits. None means that there may be
            more logits than classes.
        attacks: the attacks that will run, by name.

    Raises:
        UserError: the model cannot be evaluated: it fails, changes its input, does not return finite logits [B,
            classes], has fewer classes than the labels, or gives no gradient to an attack that needs one; or the images
            lie outside [0, 1].
    """
    if x.min() < 0 or x.max() > 1:
        raise UserError(
            f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; "
            "give them in [0, 1] and let the model normalise"
        )
    if isinstance(model, Answers):  # every image is a query
        return _preflight_answers(model, x, classes, attacks or {})
    with borrowed(model), torch.no_grad():
        logits = ask(model, x, classes)
        require_gradient(model, x, attacks or {})
        if int(y.max()) >= logits.shape[1]:
            raise UserError(
                f"labels reach {int(y.max())} but the model has {logits.shape[1]} classes; "
                "check that data and model belong together"
            )
        return list(_findings(model, x, y, precise(logits)))


def _preflight_answers(model: Answers, x: Images, classes: int | None, attacks: Mapping[str, Attack]) -> list[str]:
    """Asks a black box twice about two images. Raises UserError if it cannot be evaluated, or not by these attacks."""
    with borrowed(model), torch.no_grad():
        first, second = ask(model, x[:2], classes), model(x[:2])
    for name, attack in attacks.items():
        if needs_gradient(attack):
            raise UserError(f"{name} follows gradients, which a black box has not; use hop-skip-jump, or square")
        if model.only_classes and isinstance(attack, Square):
            raise UserError(f"{name} needs scores, and the model answers with classes only; use hop-skip-jump")
    same = float((first - second).abs().max()) <= 1e-5 * float(first.abs().max())
    return [] if same else [f"{RANDOM}: two answers about one image differ, so other queries give other numbers"]


def _findings(model: Model, x: Images, y: Labels, logits: Tensor) -> Iterator[str]:
    if (fault := gradient_fault(model, x[:2])) is not None:
        yield f"{fault}: only attacks without gradients can run, such as square and hop-skip-jump"
    size = float(logits.abs().max())
    if float((model(x) - logits).abs().max()) > 1e-5 * size:
        if isinstance(model, Eot):
            yield f"{RANDOM}: attacks and verdicts are about the mean of {model.draws} passes, which differs"
        else:
            yield f"{RANDOM}: two passes differ; use --draws 20, so that attacks climb the mean of its logits"
    elif len(x) > 1 and float((model(x[: len(x) // 2]) - logits[: len(x) // 2]).abs().max()) > 1e-3 * size:
        yield "an image's output depends on the others in its batch (batch statistics?): no verdict per image holds"
    if (text := like_probabilities(logits)) is not None:
        yield f"{text}: their gradients vanish and attacks look weak; return logits instead"
    hits = logits.argmax(1) == y
    right = float(hits.double().mean())
    if explained := {
        accuracy: text for accuracy, text in _explanations(model, x, y, logits) if accuracy > right + GAIN
    }:
        yield f"accuracy is {100 * right:.0f}%, {explained[max(explained)]}"
    elif len(x) >= 50 and not above_largest_class(hits, y):
        low, high = (100 * end for end in wilson(int(hits.sum()), len(x)))
        yield (
            f"accuracy is {100 * right:.0f}% (95% interval {low:.0f}% to {high:.0f}%), {CHANCE}: the "
            f"most frequent class is {100 * int(y.bincount().max()) / len(y):.0f}% of these {len(x)} images; "
            "check the order of the classes, the weights and the normalisation"
        )


def _explanations(model: Model, x: Images, y: Labels, logits: Tensor) -> Iterator[tuple[float, str]]:
    """What may be wrong with a model of low accuracy: the accuracy without that fault, and the fault with its remedy.

    Only accuracies above that of always answering the most frequent class are told.
    """
    if float((logits.argmax(1) == y).double().mean()) >= 1 - GAIN:
        return
    if (found := other_order(logits.argmax(1), y)) is not None:
        accuracy, order = found
        moved = few("label", (f"{label} as {output}" for label, output in order.items() if label != output))
        text = f"if the classes are taken in another order ({moved}): give the model's outputs the order of the data's"
        yield accuracy, f"but {100 * accuracy:.0f}% {text}"
    for mean, std in USUAL if x.shape[1] == 3 else ():
        m, s = (torch.tensor(values).to(x).view(1, 3, 1, 1) for values in (mean, std))
        outside, undone = _right_outside(model, (x - m) / s, y), model(x * s + m).argmax(1) == y
        if outside is not None and above_largest_class(outside, y):
            accuracy = float(outside.double().mean())
            yield accuracy, f"but {100 * accuracy:.0f}% on normalised images: put the normalisation inside the model"
        if above_largest_class(undone, y):
            accuracy = float(undone.double().mean())
            text = "if one normalisation is undone: does the model normalise twice?"
            yield accuracy, f"but {100 * accuracy:.0f}% {text}"


def _right_outside(model: Model, x: Images, y: Labels) -> Tensor | None:
    """Which images outside [0, 1] are classified correctly; None if the model rejects them, which it may."""
    try:
        if x.is_cuda:  # on a GPU an index out of range, for example in a look-up table, would end the process
            assert isinstance(model, nn.Module)
            model, x, y = copy.deepcopy(model).cpu(), x.cpu(), y.cpu()
        return model(x).argmax(1) == y
    except Exception:
        return None


def zero_gradients(model: Model, x: Images, y: Labels) -> float:
    """The share of images at which the cross-entropy's gradient is zero or not finite, in evaluation mode."""
    if gradient_fault(model, x) is not None:
        return 1.0
    with borrowed(model), torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(images), y).sum(), images)
    flat = gradient.flatten(1)
    return float(((flat == 0).all(1) | ~flat.isfinite().all(1)).double().mean())
