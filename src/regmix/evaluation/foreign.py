"""Models that were not trained here, as run directories, so that they are evaluated and reported like any other."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from regmix.attacks import Attack
from regmix.config import Experiment, to_json
from regmix.data import ImageSet, class_changes, pick
from regmix.evaluation import check_tensors, preflight
from regmix.models import Function, ModelConfig, PreActResNet, build, load_weights
from regmix.models.files import SUFFIXES
from regmix.models.statistics import misfit
from regmix.runs import CONFIG, Run
from regmix.runtime.layout import settle
from regmix.types import UserError

KNOWN = ("data", "model", "threat")


class Adopted(NamedTuple):
    """The run directory, and one line on where its weights are from."""

    run: Run
    told: str


def is_foreign(source: str) -> bool:
    """Whether a word names a file of weights or module:function rather than a run directory."""
    return not Path(source).is_dir() and (is_file_of_weights(source) or ":" in source)


def is_file_of_weights(source: str) -> bool:
    """Whether a word is the name of a file of weights, by its ending."""
    return Path(source).suffix in SUFFIXES


def adopt(
    source: str,
    experiment: Experiment,
    mean: Sequence[float],
    std: Sequence[float],
    images: ImageSet,
    out: Path,
    place: torch.device,
    attacks: Mapping[str, Attack],
    weights: str | None = None,
    settled: Collection[str] = (),
) -> Adopted:
    """A run directory whose `last` weights are those of a file, or those of the model that module:function returns.

    Args:
        source: .safetensors, or .pt and .pth without pickled code, or module:function.
        experiment: its data, model and threat count; what the model was trained with is not known and not claimed.
        mean, std: what the model's input is normalised with, unless the file says so; 0 and 1 if empty.
        place, attacks: where the model is tried on two images before anything is written, and what shall attack it.
        weights: "raw", "averaged" or the name of an entry, for a file with several sets of weights.
        settled: names of the model's settings that were chosen for this file, and so need not be asked about.

    Raises:
        UserError: weights that cannot be read or do not fit, a file that fits several networks, a model that cannot be
            evaluated, or a directory that exists and is about something else.

    Evaluations of other weights, which the same source held before, stay in the directory and are outdated.
    """

    def make(config: ModelConfig) -> nn.Module:
        return build(config, len(images.classes), images.shape[0], mean or (0.0,), std or (1.0,), images.shape[1:])

    if is_file_of_weights(source):
        chosen, model, told = _loaded(source, experiment.model, make, weights)
        if isinstance(chosen, PreActResNet) and "shortcut" not in settled:
            raise UserError(_question(source, chosen, make, weights, images))
    else:
        if not isinstance(experiment.model, Function) or experiment.model.source != source:
            raise UserError(f"{source} is a model; leave --model out, or give a file of weights in its place")
        if weights is not None:
            raise UserError(f"--weights {weights}: {source} is no file of weights")
        chosen, model = experiment.model, make(experiment.model)
        told = f"{source}: no file was loaded; the weights are those that {source} returns"
    check_tensors(model)
    few = pick(images, torch.arange(min(2, len(images))), place)
    settle(model.to(place), few.x)
    preflight(model, few.x, few.y, len(images.classes), attacks)
    parts = json.loads(to_json(replace(experiment, model=chosen)))
    config = json.dumps({name: parts[name] for name in KNOWN}, indent=2) + "\n"
    if (out / CONFIG).is_file():
        run = Run.open(out)
        before = run.environment().get("source", source)
        if run.config() != config or Path(before).resolve() != Path(source).resolve():
            raise UserError(f"{out} is about another model, data or threat; give another --out")
    else:
        run = Run.create(out, config, {"source": source})
    known = run.result()
    if known.classes and (text := class_changes(tuple(known.classes), images.classes)):
        raise UserError(f"{out} is about other classes: {text}; give another --out")
    run.save_weights("last", {name: value.clone() for name, value in model.state_dict().items()})
    run.update_result({"classes": list(images.classes), "shape": list(images.shape), "weights": told})
    return Adopted(run, told)


def _loaded(
    source: str, config: ModelConfig, make: Callable[[ModelConfig], nn.Module], weights: str | None
) -> tuple[ModelConfig, nn.Module, str]:
    """The model with the weights of a file, and its settings; those that names decide are the file's."""
    model = make(config)
    try:
        return config, model, load_weights(model, source, weights).told()
    except UserError as error:
        if not isinstance(config, PreActResNet):
            raise
        other = replace(config, final_norm=not config.final_norm)
        model = make(other)
        try:
            told = load_weights(model, source, weights).told()
        except UserError:
            raise error from None
        return other, model, f"{told}; {'with' if other.final_norm else 'without'} a final norm, as in the file"


def _question(
    source: str,
    config: PreActResNet,
    make: Callable[[ModelConfig], nn.Module],
    weights: str | None,
    images: ImageSet,
) -> str:
    """What to ask about a file that two networks fit, and which of them BatchNorm's statistics speak for."""
    x = pick(images, torch.arange(min(len(images), 100)), "cpu").x
    far = {}
    for shortcut in ("activated", "raw"):
        model = make(replace(config, shortcut=shortcut))
        load_weights(model, source, weights)
        far[shortcut] = misfit(model, x)
    nearer, other = sorted(far, key=lambda name: far[name] or 0.0)
    hint = ""
    if (far[other] or 0.0) > 1.5 * (far[nearer] or 0.0):
        hint = f"; the images lie {far[nearer]:.2f} standard deviations from its BatchNorm statistics if read as "
        hint += f"{nearer}, {far[other]:.2f} if read as {other}"
    return (
        f"{source} fits two networks of the same names; say which: --model.shortcut activated (the shortcut "
        "convolution sees its input after BatchNorm and ReLU: robust_overfitting, pytorch-cifar, FastAT Benchmark) "
        f"or --model.shortcut raw (before them: fast_adversarial, RobustBench's Wong2020Fast){hint}"
    )
