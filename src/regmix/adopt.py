"""Models that were not trained here, as run directories, so that they are evaluated and reported like any other."""

import json
from collections.abc import Sequence
from pathlib import Path

from regmix.data import ImageSet, class_changes
from regmix.experiment import Experiment, to_json
from regmix.models import build, load_weights
from regmix.models.function import Function
from regmix.runs import CONFIG, Run
from regmix.types import UserError

KNOWN = ("data", "model", "threat")


def is_foreign(source: str) -> bool:
    """Whether a word names a file of weights or module:function rather than a run directory."""
    path = Path(source)
    return not path.is_dir() and (path.suffix in (".safetensors", ".pt", ".pth") or ":" in source)


def adopt(
    source: str, experiment: Experiment, mean: Sequence[float], std: Sequence[float], images: ImageSet, out: Path
) -> Run:
    """A run directory whose `last` weights are those of a file, or those of the model that module:function returns.

    Args:
        source: .safetensors, or .pt and .pth without pickled code, or module:function.
        experiment: its data, model and threat count; what the model was trained with is not known and not claimed.
        mean, std: what the model's input is normalised with, unless the file says so; 0 and 1 if empty.

    Raises:
        UserError: weights that cannot be read or do not fit, or a directory that exists and is about something else.

    Evaluations of other weights, which the same source held before, stay in the directory and are outdated.
    """
    parts = json.loads(to_json(experiment))
    config = json.dumps({name: parts[name] for name in KNOWN}, indent=2) + "\n"
    model = build(experiment.model, len(images.classes), images.shape[0], mean or (0.0,), std or (1.0,))
    if not isinstance(experiment.model, Function):
        load_weights(model, source)
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
    run.update_result({"classes": list(images.classes), "shape": list(images.shape)})
    return run
