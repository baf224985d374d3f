"""What a training begins with, told before its first step: images, classes, network and hardware."""

from collections.abc import Iterator

import torch

from regmix.config import Experiment, NoAveraging, OneCycle, Piecewise, Swa
from regmix.data import ImageSet
from regmix.methods import Method, Mutual
from regmix.runtime.devices import computes_in_bfloat16
from regmix.threats import GREY, format_eps, turns_grey
from regmix.training.prepare import Prepared
from regmix.types import few

MOST_NAMED = 12
"""Classes whose images are all counted by name; of more, the smallest and the largest."""
UNEVEN = 3
"""A largest class of so many times the images of the smallest is worth a line."""


def found(experiment: Experiment, prepared: Prepared) -> list[str]:
    """Lines about the images, their classes, the network, the device, and what is trained against."""
    fabric, model, images, validation, precision = prepared
    size = "x".join(map(str, images.shape))
    every = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return [
        f"images: {len(images):,} to train on and {len(validation):,} to validate on, {size} (channels, height, width)",
        f"classes: {len(images.classes)}, {_counts(images, experiment)}",
        f"network: {every:,} parameters" + (f", of which {trained:,} are trained" if trained < every else "")
        + f"; {fabric.device.type}, {_arithmetic(precision, fabric.device)}",
        _against(experiment),
    ]  # fmt: skip


def _arithmetic(precision: str, device: torch.device) -> str:
    if precision != "bf16":
        return f"float{precision}"
    return "bfloat16" if computes_in_bfloat16(device) else "bfloat16 by rounding (this CPU has no arithmetic for it)"


def _against(experiment: Experiment) -> str:
    """The method and the threat model, because a wrong radius shows only after the training."""
    method, threat = experiment.method, experiment.threat
    radius = f"norm {threat.name}, eps {format_eps(threat.eps)}"
    if not method.adversarial:
        return f"method: {method.name}, without attacks; validated with {radius}"
    rising = experiment.ramp and experiment.ramp_of == "all"
    return f"method: {method.name}; {radius}" + (
        f", reached after the first {100 * experiment.ramp:g}% of the training" if rising else ""
    )


def idle(experiment: Experiment) -> Iterator[str]:
    """Lines about settings that have no effect in a training of this length, or without another setting."""
    epochs, averaging, schedule = experiment.epochs, experiment.averaging, experiment.schedule
    length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    if isinstance(averaging, Swa) and averaging.start >= epochs:
        yield f"--averaging.start {averaging.start}: nothing is averaged in {length}"
    if isinstance(schedule, Piecewise) and all(milestone >= epochs for milestone in schedule.milestones):
        yield f"--schedule piecewise: no milestone lies within {length}, so the learning rate stays the same"
    if isinstance(schedule, OneCycle) and schedule.warm_up * epochs < 1:
        yield f"--schedule one_cycle: {length} is too short for it, the learning rate never reaches its peak"
    if weights := ignored_weights(experiment.method):
        given = f"--{weights[0].rpartition('.')[0]}.weights given"
        yield f"--{', --'.join(weights)}: no effect while the weights are auto; add {given}"
    if experiment.awp and experiment.awp_warm_up >= epochs:
        yield f"--awp: it begins after epoch {experiment.awp_warm_up} of {epochs}, so never"
    if experiment.label_rest == "random" and experiment.label_mass == 1:
        yield "--label-rest random: without --label-mass nothing is left for the other classes"
    if experiment.best_of == "either" and isinstance(averaging, NoAveraging):
        yield "--best-of either: without --averaging there is nothing else to choose from"
    if experiment.guard.action != "continue" and not experiment.method.guarded:
        yield (
            f"--guard.action {experiment.guard.action}: the guard watches adversarial training with up to three steps, "
            f"not {experiment.method.name}"
        )
    if turns_grey(experiment.threat.name, experiment.threat.eps):
        yield f"--threat.eps {format_eps(experiment.threat.eps)}: {GREY}"
    if experiment.ramp_of == "terms" and not experiment.ramp:
        yield "--ramp-of terms: without --ramp nothing rises"


def unlearnable(images: ImageSet) -> Iterator[str]:
    """A line about classes without a training image."""
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    if missing := [name for name, count in zip(images.classes, counts, strict=True) if not count]:
        yield (
            f"{few('no training image is left of', missing)}; the network cannot learn "
            f"{'it' if len(missing) == 1 else 'them'}: give more images, hold out fewer, or remove the class"
        )


def ignored_weights(method: Method) -> list[str]:
    """The flags, such as method.alpha, that have an unusual value although `weights` = auto ignores them."""
    mutual = Mutual.of(method)
    if mutual is None or mutual.weights == "given":
        return []
    prefix, usual = "method" if isinstance(method, Mutual) else "method.mutual", type(mutual)()
    names = ("alpha", "beta", "gamma", "reduction")
    return [f"{prefix}.{name}" for name in names if getattr(mutual, name) != getattr(usual, name)]


def _counts(images: ImageSet, experiment: Experiment) -> str:
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    named = [f"{name} {count:,}" for name, count in zip(images.classes, counts, strict=True)]
    least, most = min(counts), max(counts)
    text = ", ".join(named)
    if len(named) > MOST_NAMED:
        text = f"from {named[counts.index(least)]} to {named[counts.index(most)]} images to train on"
    if experiment.balance == "none" and most >= UNEVEN * max(1, least):
        text += "; they are uneven: consider --balance loss or --balance sampling"
    return text
