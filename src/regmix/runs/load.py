"""`load_model`: the trained model of a run."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from regmix.models import Function, build, load_weights
from regmix.runs import CONFIG, RESULT, Checkpoint, Run
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
    """Loads the model of a run directory. The data of the training are not needed.

    Args:
        run: the directory.
        checkpoint: best, last or averaged; None means the first of these that the run has.
        source: the module:function that makes the model, if the run has a model of your own. Its code is run.
        trust_code: allows to run whatever code the run asks for.

    Raises:
        UserError: no run directory, damaged files, no such weights, or code that is not allowed to run.
    """
    # Imported here, so that `import regmix` stays fast.
    from regmix.config import from_json

    directory = Run.open(Path(run), writes=False)
    config = from_json(directory.config(), directory.path / CONFIG, Trust(source, trust_code)).model
    if source is not None and not isinstance(config, Function):
        raise UserError(f"{run} has a model of its own kind, {config.name}; leave out source={source!r}")
    there, facts = directory.checkpoints(), directory.result()
    if not there or checkpoint not in (None, *there):
        raise UserError(f"{run} has no {checkpoint or 'best'} weights; it has: {', '.join(there) or 'none yet'}")
    if not facts.classes or len(facts.shape) != 3:
        raise UserError(f"{directory.path / RESULT} does not say which images the model takes; train it again")
    (channels, height, width), classes = facts.shape, tuple(facts.classes)
    # Normalisation comes with the weights.
    model = build(config, len(classes), channels, size=(height, width))
    load_weights(model, directory.weights(checkpoint or there[0]))
    return Trained(model.eval(), classes, (channels, height, width))
