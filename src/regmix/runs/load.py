"""`load_model`: the trained model of a run, or one that was exported."""

import warnings
from pathlib import Path
from typing import NamedTuple

from torch import nn

from regmix.arguments import checked
from regmix.data.single import Transform
from regmix.models import Function, ModelConfig, build, changed_code, load_weights, users_code
from regmix.runs import CHECKPOINTS, CONFIG, RESULT, Checkpoint, Run
from regmix.runs.exported import WEIGHTS, folder_of, read_exported
from regmix.types import Doubt, Trust, UserError


class Trained(NamedTuple):
    """A model in evaluation mode, its classes and the shape of its images."""

    model: nn.Module
    """Images [B, C, H, W] in [0, 1] to logits [B, classes], in float32 on the CPU; it normalises its input."""
    classes: tuple[str, ...]
    """The names of the classes, in the order of the logits."""
    shape: tuple[int, int, int]
    """[C, H, W] of the images that it was trained on."""

    @property
    def transform(self) -> Transform:
        """From a file or an image of Pillow to the model's input [C, H, W] in [0, 1].

        It does what the readers of image files do: makes the image upright, resizes it so that it just covers the
        shape, cuts out the centre, and makes it grey for a model of one channel. Training with arrays of your own
        (`Images.of`, module:function) knows nothing of files; there your own preparation counts.
        """
        return Transform(self.shape)


@checked
def load_model(
    run: str | Path | Run, checkpoint: Checkpoint | None = None, *, source: str | None = None, trust_code: bool = False
) -> Trained:
    """Loads the model of a run directory, or one that `regmix export` wrote. The data of the training are not needed.

    Args:
        run: a run or its directory, a folder that `regmix export --format hub` or safetensors wrote, the file of
            weights in one of these, or hf:OWNER/NAME for such a folder on the Hugging Face hub. Only weights and
            settings are read; no code of the folder is run.
        checkpoint: best, last or averaged; None means the first of these that the run has.
        source: the module:function that makes the model, if the run has a model of your own. Its code is run.
        trust_code: allows to run whatever code the run asks for.

    Warns if the files of a model of your own have changed since its training began.

    Raises:
        UserError: no run directory, damaged files, no such weights, or code that is not allowed to run.
    """
    folder, trust = run.path if isinstance(run, Run) else folder_of(run), Trust(source, trust_code)
    if folder.is_file():
        folder, checkpoint = _of_file(folder, checkpoint)
    if (exported := read_exported(folder, trust)) is None:
        config, classes, shape, weights, code = _of_run(folder, checkpoint, trust)
    else:
        if checkpoint not in (None, exported.checkpoint):
            raise UserError(
                f"{folder} holds the {exported.checkpoint} weights only; leave out checkpoint={checkpoint!r}"
            )
        config, classes, shape, weights = exported.model, exported.classes, exported.shape, folder / WEIGHTS
        code = exported.code
    if source is not None and not isinstance(config, Function):
        raise UserError(f"{folder} has a model of its own kind, {config.name}; leave out source={source!r}")
    # Normalisation comes with the weights.
    model = build(config, len(classes), shape[0], size=shape[1:])
    load_weights(model, weights)
    if code and (text := changed_code(code, users_code(model, config))):
        warnings.warn(text, Doubt, stacklevel=3)  # of the caller, beyond `checked`
    return Trained(model.eval(), tuple(classes), shape)


def _of_file(path: Path, checkpoint: Checkpoint | None) -> tuple[Path, Checkpoint | None]:
    """The folder that says to which network a file of weights belongs, and the checkpoint that the file is."""
    if path.name == WEIGHTS:
        return path.parent, checkpoint
    own = next((name for name in CHECKPOINTS if path.name == f"{name}.safetensors"), None)
    if own is None or not (path.parent / CONFIG).is_file():
        raise UserError(
            f"nothing beside {path} says which network its weights are for; give a run directory or an exported "
            "folder, or make the network yourself: regmix.models.load_weights(network, path)"
        )
    if checkpoint not in (None, own):
        raise UserError(f"{path} holds the {own} weights; leave out checkpoint={checkpoint!r}")
    return path.parent, own


def _of_run(
    folder: Path, checkpoint: Checkpoint | None, trust: Trust
) -> tuple[ModelConfig, list[str], tuple[int, int, int], Path, dict[str, str]]:
    """The settings of the model of a run, its classes, the shape of its images, its weights and its code."""
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
    if checkpoint is None and (text := directory.without_best()):
        warnings.warn(f"{text}; these are the {there[0]} weights", Doubt, stacklevel=4)
    weights, code = directory.weights(checkpoint or there[0]), directory.environment().code
    return config, facts.classes, (channels, height, width), weights, code
