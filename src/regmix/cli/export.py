"""`regmix export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from regmix.cli.common import ModelSource, evaluate_command, in_one_process
from regmix.cli.flags import parse
from regmix.exports import TOLERANCE, connect, push
from regmix.exports import export as write_export
from regmix.runs import Checkpoint, Run
from regmix.types import UserError


@dataclass(frozen=True)
class ExportFlags:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run directory."""
    format: Literal["safetensors", "onnx", "pt2", "robustbench", "hub"]
    """What to write. safetensors: weights with their settings. onnx: the network for any runtime of ONNX. pt2: the
    network as a program of torch.export. robustbench: a state dict and a model_info.json. hub: a folder for the Hugging
    Face hub."""
    out: Path | None = None
    """The folder to write. None: exports/RUN-FORMAT."""
    checkpoint: Checkpoint | None = None
    """Which weights. None: best, or last if the run has no best weights."""
    normalisation: bool = True
    """With --no-normalisation the state dict for RobustBench has no entries `normalise.*`, like most of RobustBench's
    networks; a model that normalises its input is then refused."""
    push: str | None = None
    """With --format hub: upload the folder to this repository, OWNER/NAME; if it does not exist, it is created as a
    private repository. None: only write the folder."""
    source: ModelSource = None
    """The module:function that returns the run's model, if the model is a function of yours. Its code is run. None: no
    code of yours."""
    trust_code: bool = False
    """Allow the import of any code that the run names as its model."""


def export(words: Sequence[str]) -> None:
    """Writes the model of a run in a format for other programs."""
    in_one_process("export")
    flags = parse(ExportFlags, words, "export")
    if flags.push is not None and flags.format != "hub":
        raise UserError("--push uploads what --format hub writes; add --format hub, or leave out --push")
    hub = connect(flags.push) if flags.push is not None else None
    out = flags.out or Path("exports") / f"{flags.run.resolve().name}-{flags.format}"
    done = write_export(
        flags.run,
        flags.format,
        out,
        flags.checkpoint,
        normalisation=flags.normalisation,
        source=flags.source,
        trust_code=flags.trust_code,
    )
    print(
        f"{done.folder}: the {done.checkpoint} weights; read back, the logits differ by at most {done.difference:.1e} "
        f"of the largest one (allowed: {TOLERANCE:.0e})"
    )
    if not done.measured:
        command = f"{evaluate_command(Run.open(flags.run))} --checkpoint {done.checkpoint} --attacks clean,pgd-50"
        print(f"the model card says that robustness was not measured; measure it with: {command}, then export again")
    if flags.push is not None:
        print(push(hub, done.folder, flags.push))
