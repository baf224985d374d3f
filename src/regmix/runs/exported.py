"""A model outside of its run directory: a file of weights and a JSON file that says which model it belongs to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from regmix.models import Function, ModelConfig
from regmix.runs.files import read_record
from regmix.runs.records import Checkpoint
from regmix.runtime.files import digest
from regmix.types import Trust, UserError

WEIGHTS = "model.safetensors"
HUB_DESCRIPTION = "config.json"
"""The description in a folder for the Hugging Face hub."""
DESCRIPTION = "model.json"
"""The description beside a file of any other format."""
ON_HUB = "hf:"
"""Begins the name of a repository of the hub."""
INPUT = "float32 [B, C, H, W], pixel values in [0, 1] (8-bit values divided by 255); the model normalises them itself"


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """model.json, or config.json in a folder for the hub: what the exported file holds."""

    library_name: str = "regmix"
    regmix: str
    """The version of regmix."""
    model: Annotated[ModelConfig, Field(discriminator="name")]
    classes: list[str]
    """In the order of the logits."""
    shape: tuple[int, int, int]
    """[C, H, W] of the images."""
    input: str = INPUT
    output: str = "logits [B, classes]"
    threat: dict[str, str | float]
    """The threat model of the run, with the radius in pixel units of [0, 1]."""
    checkpoint: Checkpoint
    weights: str
    """Digest of the file of weights in the run directory, which its evaluations name."""
    file: str
    """The exported file."""
    digest: str
    """The first 16 digits of its SHA-256."""
    code: dict[str, str] = field(default_factory=dict)
    """Digests of the files of a model of the user's own, as they were when its training began."""


def folder_of(name: str | Path) -> Path:
    """The folder that a name means; a repository of the hub, hf:OWNER/NAME, is downloaded first.

    Raises:
        UserError: huggingface_hub is not installed, or the repository cannot be fetched.
    """
    repository = str(name).removeprefix(ON_HUB)
    if repository == str(name):
        return Path(name)
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f'{name} needs huggingface_hub: pip install "regmix[data]" ({error})') from None
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=[WEIGHTS, HUB_DESCRIPTION]))
    except Exception as error:  # the hub's client and its HTTP library have many kinds
        cause = " ".join(str(error).split())
        raise UserError(f"{repository} cannot be fetched from the Hugging Face hub: {cause}") from error


def read_exported(folder: Path, trust: Trust) -> ExportedModel | None:
    """The description of the exported weights in a folder; None if there are none, as in a run directory.

    Raises:
        UserError: a damaged description, weights that it does not describe, or code that is not allowed to run.
    """
    names = [name for name in (HUB_DESCRIPTION, DESCRIPTION) if (folder / name).is_file()]
    if not names or not (folder / WEIGHTS).is_file():
        return None
    path = folder / names[0]
    found = read_record(path, ExportedModel)
    if digest(folder / WEIGHTS) != found.digest:
        raise UserError(f"{folder / WEIGHTS} is not the file that {path} describes; export or download both again")
    if isinstance(found.model, Function):
        trust.check(found.model.source, path)
    return found
