"""The checkpoint that is exported, with all that its run says about it."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from regmix.config import Experiment, from_json
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.runs.evaluations import Stored
from regmix.runs.load import load_model
from regmix.runs.verdicts import with_verdicts
from regmix.runtime.files import digest
from regmix.types import Doubt, Trust, UserError


@dataclass(frozen=True, eq=False)
class Checkpointed:
    """A checkpoint of a run: its model in evaluation mode on the CPU, and the records that hold for its weights."""

    run: Run
    checkpoint: Checkpoint
    weights: str
    """Digest of the file of weights."""
    model: nn.Module
    """Images [B, C, H, W] in [0, 1] to logits [B, classes]."""
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """[C, H, W] of the images."""
    experiment: Experiment
    evaluations: list[Stored]
    """Those of exactly these weights that are not outdated: first those on the run's own test split, then those on
    other images, each the latest last."""

    @property
    def own(self) -> list[Stored]:
        """The evaluations on the test split that the run's settings name."""
        return [stored for stored in self.evaluations if not stored.evaluation.elsewhere]

    @property
    def is_foreign(self) -> bool:
        """Whether the weights come from elsewhere; the method in the settings then says nothing about them."""
        return self.run.environment().source is not None


def choose(
    run: Path, checkpoint: Checkpoint | None = None, source: str | None = None, trust_code: bool = False
) -> Checkpointed:
    """The checkpoint to export; see `load_model` for the arguments.

    Raises:
        UserError: as `load_model`; or the weights are being replaced by a training.
    """
    directory = Run.open(run, writes=False)
    trust = Trust(source, trust_code)
    experiment = from_json(directory.config(), run / CONFIG, trust, reads_data=False)
    chosen: Checkpoint = checkpoint or (directory.checkpoints() or ["best"])[0]
    if checkpoint is None and (text := directory.without_best()):
        warnings.warn(f"{text}; the {chosen} weights are exported", Doubt, stacklevel=2)
    path = directory.weights(chosen)
    before = digest(path) if path.is_file() else ""
    loaded = load_model(run, chosen, source=source, trust_code=trust_code)
    if digest(path) != before:
        raise UserError(f"{path} was replaced while it was read; export it again when the training has ended")
    held = with_verdicts([each for each in directory.evaluations() if not each.outdated])
    mine = [each for each in held if each.evaluation.subject.weights == before]
    mine = [each for each in mine if each.evaluation.subject.checkpoint == chosen]
    mine.sort(key=lambda each: bool(each.evaluation.elsewhere))
    return Checkpointed(directory, chosen, before, loaded.model, loaded.classes, loaded.shape, experiment, mine)
