"""Writes a checkpoint in a format for other programs, reads it back and compares it with the model."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from regmix import __version__
from regmix.exports.card import is_measured, model_card
from regmix.exports.check import TOLERANCE, difference
from regmix.exports.checkpoint import Checkpointed, choose
from regmix.exports.graphs import read_onnx, read_pt2, write_onnx, write_pt2
from regmix.exports.hub import front_matter
from regmix.exports.robustbench import model_info
from regmix.exports.weights import read_weights, write_robustbench, write_robustbench_plain, write_safetensors
from regmix.runs import Checkpoint
from regmix.runs.exported import DESCRIPTION, HUB_DESCRIPTION, WEIGHTS, ExportedModel
from regmix.runs.files import write_record
from regmix.runtime.files import PART, digest
from regmix.types import Model, UserError

FormatName = Literal["safetensors", "onnx", "pt2", "robustbench", "hub"]
CARD, HUB_CARD, MODEL_INFO = "MODEL_CARD.md", "README.md", "model_info.json"


class Format(NamedTuple):
    """How a format is written and read back."""

    file: str
    write: Callable[[Checkpointed, Path, dict[str, object]], None]
    read: Callable[[Checkpointed, Path], Model]


FORMATS: dict[FormatName, Format] = {
    "safetensors": Format(WEIGHTS, write_safetensors, read_weights),
    "onnx": Format("model.onnx", write_onnx, read_onnx),
    "pt2": Format("model.pt2", write_pt2, read_pt2),
    "robustbench": Format("model.pt", write_robustbench, read_weights),
    "hub": Format(WEIGHTS, write_safetensors, read_weights),
}
assert tuple(FORMATS) == get_args(FormatName)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    checkpoint: Checkpoint
    difference: float
    """max |exported logit - model's logit| / max |model's logit| on random images."""
    measured: bool
    """Whether the model card holds accuracies under attack."""


def export(
    run: str | Path,
    form: FormatName,
    out: str | Path,
    checkpoint: Checkpoint | None = None,
    *,
    normalisation: bool = True,
    source: str | None = None,
    trust_code: bool = False,
) -> Exported:
    """Writes a folder with the model of a run in a format for other programs, and a model card.

    The file is read back and must give the logits of the model on random images [B, C, H, W] in [0, 1]:

        max |exported - model| <= 1e-5 max |model|, each over images and classes

    otherwise nothing is left of it. In every format the model takes images in [0, 1] and normalises them itself.

    Args:
        form: safetensors and hub: weights and settings, which `load_model` reads. pt2 and onnx: the computation for
            any number of images of the size of the training. robustbench: a state dict and a model_info.json.
        out: the folder; it must not exist.
        checkpoint: as in `load_model`.
        normalisation: False leaves `normalise.*` out of the state dict for RobustBench.
        source: as in `load_model`.
        trust_code: as in `load_model`.

    Raises:
        UserError: as `load_model`; the folder exists; the model cannot be exported in this format, or the exported file
            gives other logits; or a library is missing.
    """
    out, how = Path(out), FORMATS[form]
    if out.exists():
        raise UserError(f"{out} exists; give another --out, or remove it")
    if out.suffix and out.suffix == Path(how.file).suffix:
        raise UserError(f"--out {out}: an export is a folder, which holds {how.file}; write --out {out.stem}")
    if not normalisation:
        if form != "robustbench":
            raise UserError("--no-normalisation belongs to --format robustbench; leave it out")
        how = how._replace(write=write_robustbench_plain)
    chosen = choose(Path(run), checkpoint, source, trust_code)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".", suffix=PART) as temporary:
        folder = Path(temporary) / "export"
        folder.mkdir()
        error = _write(chosen, form, how, folder)
        folder.rename(out)
    return Exported(out, chosen.checkpoint, error, is_measured(chosen))


def _write(chosen: Checkpointed, form: FormatName, how: Format, folder: Path) -> float:
    """Writes all files into a folder; returns how far the logits are from the model's."""
    description = ExportedModel(
        regmix=__version__,
        model=chosen.experiment.model,
        classes=[*chosen.classes],
        shape=chosen.shape,
        threat=asdict(chosen.experiment.threat),
        checkpoint=chosen.checkpoint,
        weights=chosen.weights,
        file=how.file,
        digest="",
        code=_without_folders(chosen.run.environment().code),
    )
    facts = asdict(description)
    del facts["file"], facts["digest"]
    path, name = folder / how.file, chosen.run.path.resolve().name
    how.write(chosen, path, facts)
    error = difference(chosen.model, how.read(chosen, path), chosen.shape)
    if not error <= TOLERANCE:
        raise UserError(
            f"the exported {how.file} gives other logits than the model: they differ by {error:.1e} of the largest "
            f"logit, more than {TOLERANCE:.0e}; it was removed"
        )
    sum_ = digest(path)
    is_hub = form == "hub"
    write_record(folder / (HUB_DESCRIPTION if is_hub else DESCRIPTION), replace(description, digest=sum_))
    card = model_card(chosen, name, how.file, sum_)
    if is_hub:
        card = front_matter(chosen, name) + card
    (folder / (HUB_CARD if is_hub else CARD)).write_text(card, encoding="utf-8")
    if form == "robustbench":
        (folder / MODEL_INFO).write_text(json.dumps(model_info(chosen), indent=2) + "\n", encoding="utf-8")
    return error


def _without_folders(code: Mapping[str, str]) -> dict[str, str]:
    """Digests of files by their paths below the folder that they share, which says nothing about the machine."""
    if not code:
        return {}
    shared = os.path.commonpath([Path(path).parent for path in code])
    return {Path(path).relative_to(shared).as_posix(): sum_ for path, sum_ in code.items()}
