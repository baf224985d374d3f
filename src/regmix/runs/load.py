"""`load_model`: the trained model of a run, or one that was exported."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from regmix.models import Function, ModelConfig, build, load_weights
from regmix.runs import CONFIG, RESULT, Checkpoint, Run
from regmix.runs.exported import WEIGHTS, folder_of, read_exported
from regmix.types import Trust, UserError


class Trained(NamedTuple):
    """A model in evaluation mode, its classes and the shape of its images."""

    model: nn.Module
    """Images [B, C, H, W] in [0, 1] to logits [B, classes], in float32 on the CPU; it normalises its input."""
    classes: tuple[str, ...]
    """The names of the classes, in the order of the logits."""
    shape: tuple[int, int, int]
    """[C, H, W] of the images that it was trained on."""


def load_model(
    run: str | Path, checkpoint: Checkpoint | None = None, *, source: str | None = None, trust_code: bool = False
) -> Trained:
    """Loads the model of a run directory, or one that `regmix export` wrote. The data of the training are not needed.

    Args:
        run: the directory, a folder that `regmix export --format hub` or safetensors wrote, or hf:OWNER/NAME for such a
            folder on the Hugging Face hub. Only weights and settings are read from it; its code is never run.
        checkpoint: best, last or averaged; None means the first of these that the run has.
        source: the module:function that makes the model, if the run has a model of your own. Its code is run.
        trust_code: allows to run whatever code the run asks for.

    Raises:
        UserError: no run directory, damaged files, no such weights, or code that is not allowed to run.
    """
    folder, trust = folder_of(run), Trust(source, trust_code)
    if (exported := read_exported(folder, trust)) is None:
        config, classes, shape, weights = _of_run(folder, checkpoint, trust)
    else:
        if checkpoint not in (None, exported.checkpoint):
            raise UserError(f"{run} holds the {exported.checkpoint} weights only; leave out checkpoint={checkpoint!r}")
        config, classes, shape, weights = exported.model, exported.classes, exported.shape, folder / WEIGHTS
    if source is not None and not isinstance(config, Function):
        raise UserError(f"{run} has a model of its own kind, {config.name}; leave out source={source!r}")
    # Normalisation comes with the weights.
    model = build(config, len(classes), shape[0], size=shape[1:])
    load_weights(model, weights)
    return Trained(model.eval(), tuple(classes), shape)


def _of_run(
    folder: Path, checkpoint: Checkpoint | None, trust: Trust
) -> tuple[ModelConfig, list[str], tuple[int, int, int], Path]:
    """The settings of the model of a run, its classes, the shape of its images and its file of weights."""
    # Imported here, so that `import regmix` stays fast.
    from regmix.config import from_json

    directory = Run.open(folder, writes=False)
    config = from_json(directory.config(), directory.path / CONFIG, trust, reads_data=False).model
    there, facts = directory.checkpoints(), directory.result()
    if not there or checkpoint not in (None, *there):
        raise UserError(f"{folder} has no {checkpoint or 'best'} weights; it has: {', '.join(there) or 'none yet'}")
    if not facts.classes or len(facts.shape) != 3:
        raise UserError(f"{directory.path / RESULT} does not say which images the model takes; train it again")
    channels, height, width = facts.shape
    return config, facts.classes, (channels, height, width), directory.weights(checkpoint or there[0])
