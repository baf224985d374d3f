"""Models that were not trained here, as run directories: they are evaluated and reported like any other run."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from regmix.attacks import Attack
from regmix.config import Experiment, to_json
from regmix.data import ImageSet, class_changes, pick, spread
from regmix.evaluation.answers import ask, check_tensors
from regmix.evaluation.class_order import check_class_names
from regmix.evaluation.preflight import LOOKED_AT, preflight
from regmix.evaluation.subject import PlacedModel
from regmix.models import (
    ONNX,
    Answers,
    BlackBox,
    FromElsewhere,
    Function,
    ModelConfig,
    PreActResNet,
    Timm,
    Transformers,
    build,
    load_weights,
)
from regmix.models.base import Normalise
from regmix.models.black_box import onnx_metadata
from regmix.models.files import SUFFIXES
from regmix.models.statistics import misfit
from regmix.runs import CHECKPOINTS, CONFIG, RESULT, Run
from regmix.runs.environment import environment
from regmix.runs.exported import DESCRIPTION, HUB_DESCRIPTION, ExportedModel
from regmix.runs.files import read_record
from regmix.runtime.borrowed import borrowed
from regmix.runtime.files import digest
from regmix.types import UserError

KNOWN = ("data", "model", "threat")
PATIENCE = 2.0
"""Seconds to wait for the settings of a directory that exists without them."""


def is_foreign(source: str) -> bool:
    """Whether a word names a file of weights or a model, such as module:function, rather than a run directory."""
    return not Path(source).is_dir() and (is_file_of_weights(source) or source.endswith(ONNX) or ":" in source)


def is_file_of_weights(source: str) -> bool:
    """Whether a word is the name of a file of weights, by its ending."""
    return Path(source).suffix in SUFFIXES


class Adopted(NamedTuple):
    """A model from elsewhere as a run directory."""

    run: Run
    origin: str
    """Where the weights are from, in one line."""
    loaded: PlacedModel
    """The model itself, so that it need not be built again."""


@dataclass(frozen=True)
class Foreign:
    """A model from elsewhere: what the user has said about it."""

    source: str
    """A file (.safetensors, or .pt and .pth without pickled code), timm:NAME, hf:NAME or module:function."""
    experiment: Experiment
    """Its data, model and threat; how the model was trained is not known."""
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    """What the input is normalised with; empty: what the file or the library says, or else 0 and 1."""
    weights: str | None = None
    """"raw", "averaged" or the name of an entry, for a file with several sets of weights."""
    assumed: bool = False
    """Whether the user has not said which network a file of weights is for."""
    settled: Collection[str] = ()
    """Names of the model's settings that the user has chosen, which need not be asked for."""

    def adopt(self, images: ImageSet, out: Path, device: torch.device, attacks: Mapping[str, Attack]) -> Adopted:
        """Makes a run directory whose `last` weights are the model's, or updates the one that is there.

        Evaluations of other weights that the same source held before stay in the directory and are outdated.

        Args:
            images: the test images; the model is tried on a few of them before anything is written.
            attacks: by name those that will run, so that a model without a gradient is refused if they need one.

        Raises:
            UserError: weights that cannot be read or do not fit, a file that fits several networks, a model that cannot
                be evaluated, or a directory that exists and is about something else.
        """
        config, model, origin = self._load(images)
        check_class_names(self.source, self._class_names(config), images.classes)
        self._check_normalisation(model)
        check_tensors(model)
        loaded = PlacedModel.place(model, "", images, device)
        two = pick(images, spread(images.labels, 2), device)
        preflight(model, two.x, two.y, len(images.classes), attacks)
        if not isinstance(model, Answers):  # of which every image is a query
            with borrowed(model), torch.no_grad():
                ask(model, pick(images, spread(images.labels, LOOKED_AT), device).x, len(images.classes))
        run = self._directory(config, images, out, device)
        run.save_weights("last", {name: value.clone() for name, value in model.state_dict().items()})
        known = run.result()
        run.save_result(replace(known, classes=[*images.classes], shape=[*images.shape], weights=origin))
        return Adopted(run, origin, replace(loaded, weights=digest(run.weights("last"))))

    def _load(self, images: ImageSet) -> tuple[ModelConfig, nn.Module, str]:
        """The model with its weights, its settings, and where the weights are from."""
        if isinstance(self.experiment.model, BlackBox) and (self.mean or self.std):
            raise UserError(f"{self.source} is a black box and gets images in [0, 1]; leave out --mean and --std")
        source, config = self.source, self.experiment.model
        if is_file_of_weights(source):
            loaded = self._load_file(config, images)
            if isinstance(loaded[0], PreActResNet) and "shortcut" not in self.settled:
                raise UserError(self._ask_for_shortcut(loaded[0], images))
            return loaded
        is_other = isinstance(config, Function) and config.source != source
        if is_other or not isinstance(config, FromElsewhere):
            raise UserError(f"{source} is a model; leave --model out, or give a file of weights in its place")
        if self.weights is not None:
            raise UserError(f"--weights {self.weights}: {source} is no file of weights; leave --weights out")
        if isinstance(config, (Timm, Transformers)):
            model = self._build(config, images)
            return config, model, f"{source}: {load_weights(model, config.published(images.shape[0])).summary()}"
        if isinstance(config, BlackBox):
            return config, self._build(config, images), f"{source}: a black box; only its answers are used"
        origin = f"{source}: no file was loaded; the weights are those that {source} returns"
        return config, self._build(config, images), origin

    def _class_names(self, config: ModelConfig) -> list[str]:
        """The names of the model's outputs, if the library knows them, or a record beside or inside a file of ours."""
        if isinstance(config, Transformers):
            return config.class_names()
        file = Path(self.source)
        if file.stem in CHECKPOINTS and (file.parent / RESULT).is_file():
            with suppress(UserError):  # files of another program
                return [*Run.open(file.parent, writes=False).result().classes]
        for description in filter(Path.is_file, (file.with_name(DESCRIPTION), file.with_name(HUB_DESCRIPTION))):
            with suppress(UserError):  # a config.json of another library
                described = read_record(description, ExportedModel)
                if described.file == file.name:
                    return described.classes
        return _classes_inside(file)

    def _check_normalisation(self, model: nn.Module) -> None:
        """Raises UserError where the mean or the deviation that the user has given is not the one that is used."""
        used = getattr(model, "normalise", None)
        for name, given in (("mean", self.mean), ("std", self.std)):
            if not given:
                continue
            if not isinstance(used, Normalise):
                raise UserError(
                    f"--{name} has no effect on a model of your own, which normalises its input itself; do it in the "
                    "model, and leave out --mean and --std"
                )
            own = getattr(used, name).flatten()
            if not torch.equal(own, torch.tensor(given).expand_as(own)):
                values = " ".join(f"{value:.4g}" for value in own.tolist())
                raise UserError(
                    f"--{name} has no effect: {self.source} has its own, {values}; leave out --mean and --std"
                )

    def _load_file(self, config: ModelConfig, images: ImageSet) -> tuple[ModelConfig, nn.Module, str]:
        """The same for a file; settings that the names of its tensors decide are taken from the file."""
        model = self._build(config, images)
        try:
            return config, model, load_weights(model, self.source, self.weights).summary()
        except UserError as error:
            if self.assumed:
                raise UserError(
                    f"{error}; without --model it was read as {config.name}: name the network with --model KIND, or as "
                    "--model module:function if its code is yours"
                ) from None
            if not isinstance(config, PreActResNet):
                raise
            other = replace(config, final_norm=not config.final_norm)
            model = self._build(other, images)
            try:
                loaded = load_weights(model, self.source, self.weights).summary()
            except UserError:
                raise error from None
            return other, model, f"{loaded}; {'with' if other.final_norm else 'without'} a final norm, as in the file"

    def _build(self, config: ModelConfig, images: ImageSet) -> nn.Module:
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        return build(config, len(images.classes), images.shape[0], mean, std, images.shape[1:])

    def _ask_for_shortcut(self, config: PreActResNet, images: ImageSet) -> str:
        """What to ask about a file that fits two networks, with a hint from BatchNorm's statistics."""
        x = pick(images, torch.arange(min(len(images), 100)), "cpu").x
        distance = {}
        for shortcut in ("activated", "raw"):
            model = self._build(replace(config, shortcut=shortcut), images)
            load_weights(model, self.source, self.weights)
            distance[shortcut] = misfit(model, x) or 0.0
        nearer, other = sorted(distance, key=lambda name: distance[name])
        hint = ""
        if distance[other] > 1.5 * distance[nearer]:
            hint = f"; the images lie {distance[nearer]:.2f} standard deviations from its BatchNorm statistics if read "
            hint += f"as {nearer}, {distance[other]:.2f} if read as {other}"
        return (
            f"{self.source} fits two networks of the same names; say which: --model.shortcut activated (the shortcut "
            "convolution sees its input after BatchNorm and ReLU: robust_overfitting, pytorch-cifar, FastAT Benchmark) "
            f"or --model.shortcut raw (before them: fast_adversarial, RobustBench's Wong2020Fast){hint}"
        )

    def _directory(self, config: ModelConfig, images: ImageSet, out: Path, device: torch.device) -> Run:
        """The new run directory, or the one that is there, if it is about the same model, data, threat and classes."""
        settings = json.loads(to_json(replace(self.experiment, model=config)))
        text = json.dumps({name: settings[name] for name in KNOWN}, indent=2) + "\n"
        if not (out / CONFIG).is_file():
            try:
                return Run.create(out, text, environment(device, source=self.source))
            except UserError:
                if not _appears(out / CONFIG):
                    raise
        run = Run.open(out)
        before = run.environment().source or self.source
        if run.config() != text or Path(before).resolve() != Path(self.source).resolve():
            raise UserError(f"{out} is about another model, data or threat; give another --out")
        known = run.result()
        if known.classes and (text := class_changes(tuple(known.classes), images.classes)):
            raise UserError(f"{out} is about other classes: {text}; give another --out")
        return run


def _appears(path: Path) -> bool:
    """Waits for a file that the same command on another machine may be about to write."""
    deadline = time.monotonic() + PATIENCE
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(PATIENCE / 20)
    return path.is_file()


def _classes_inside(file: Path) -> list[str]:
    """The class names in the metadata of a file of weights or of ONNX, which our exports write; empty without them."""
    facts: Mapping[str, str] = {}
    if file.suffix == ".onnx":
        facts = onnx_metadata(file)
    elif file.is_file():
        with suppress(SafetensorError, OSError), safe_open(file, "pt") as opened:
            facts = opened.metadata() or {}
    with suppress(ValueError):  # written by another program
        names = json.loads(facts.get("classes", "[]"))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return []
