"""What a training begins with, told before its first step: images, classes, network and hardware."""

from collections.abc import Iterator

import torch

from regmix.config import Experiment, OneCycle, Piecewise, Swa
from regmix.data import ImageSet
from regmix.methods import Mutual
from regmix.runtime import devices
from regmix.training.prepare import Prepared

MOST_NAMED = 12
"""Classes whose images are all counted by name; of more, the smallest and the largest."""
UNEVEN = 3
"""A largest class of so many times the images of the smallest is worth a line."""


def found(experiment: Experiment, prepared: Prepared) -> list[str]:
    """Lines about the images, their classes, the network and the device."""
    fabric, model, images, validation = prepared
    size = "x".join(map(str, images.shape))
    every, trained = (sum(p.numel() for p in model.parameters() if p.requires_grad or all_) for all_ in (True, False))
    precision = devices.resolved(experiment.precision, fabric.device)
    return [
        f"images: {len(images):,} to train on and {len(validation):,} to validate on, {size} (channels, height, width)",
        f"classes: {len(images.classes)}, {_counts(images)}{_advice(images, experiment)}",
        f"network: {every:,} parameters" + (f", of which {trained:,} are trained" if trained < every else "")
        + f"; {fabric.device.type}, {'bfloat16' if precision == 'bf16' else f'float{precision}'}",
    ]  # fmt: skip


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
    mutual = experiment.method if isinstance(experiment.method, Mutual) else getattr(experiment.method, "mutual", None)
    if isinstance(mutual, Mutual) and mutual.ignored:
        yield f"{', '.join(mutual.ignored)}: no effect while the weights are auto (--method.weights given changes that)"
    if experiment.awp and experiment.awp_warm_up >= epochs:
        yield f"--awp: it begins after epoch {experiment.awp_warm_up} of {epochs}, so never"
    if experiment.label_rest == "random" and experiment.label_mass == 1:
        yield "--label-rest random: without --label-mass nothing is left for the other classes"
    if experiment.ramp_of == "terms" and not experiment.ramp:
        yield "--ramp-of terms: without --ramp nothing rises"


def _counts(images: ImageSet) -> str:
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    if len(counts) <= MOST_NAMED:
        return ", ".join(f"{name} {count:,}" for name, count in zip(images.classes, counts, strict=True))
    least, most = (pick(range(len(counts)), key=counts.__getitem__) for pick in (min, max))
    return (
        f"from {images.classes[least]} {counts[least]:,} to {images.classes[most]} {counts[most]:,} images to train on"
    )


def _advice(images: ImageSet, experiment: Experiment) -> str:
    counts = torch.bincount(images.labels, minlength=len(images.classes))
    if experiment.balance != "none" or counts.max() < UNEVEN * counts.min().clamp_min(1):
        return ""
    return "; they are uneven: consider --balance loss or --balance sampler"
