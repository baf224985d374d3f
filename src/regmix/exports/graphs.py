"""Formats that hold the computation itself: pt2 (torch.export) and ONNX. The number of images in a batch is free."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regmix.exports.checkpoint import Checkpointed
from regmix.runtime.imported import optional
from regmix.types import Images, Logits, Model, UserError, first_line

FACTS = "regmix.json"
"""The entry of a pt2 file that holds the facts about the model as JSON; an ONNX file has them as metadata."""


class _Whole(nn.Module):
    """The model as an inner module, so that its hooks are traced too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Images) -> Logits:
        logits: Logits = self.model(images)
        return logits


def write_pt2(chosen: Checkpointed, path: Path, facts: dict[str, object]) -> None:
    """Writes a program of torch.export. Raises UserError if the model cannot be traced."""
    with _quiet():
        torch.export.save(_traced(chosen, "pt2"), path, extra_files={FACTS: json.dumps(facts)})


def read_pt2(chosen: Checkpointed, path: Path) -> Model:
    """The program as a function of images."""
    with _quiet():
        program: nn.Module = torch.export.load(path).module()
    return program


def write_onnx(chosen: Checkpointed, path: Path, facts: dict[str, object]) -> None:
    """Writes an ONNX file with the input `images` and the output `logits`.

    Raises:
        UserError: the model cannot be traced or has an operation that ONNX lacks, or a library is missing.
    """
    _required("onnx")
    _required("onnxscript")
    with _quiet():
        traced = _traced(chosen, "onnx")
        try:
            program = torch.onnx.export(traced, input_names=["images"], output_names=["logits"], verbose=False)
            assert program is not None
            program.model.metadata_props.update({name: json.dumps(value) for name, value in facts.items()})
            program.save(path)
        except Exception as error:  # the exporter has kinds of its own, and passes on those of its libraries
            fault = f"the model cannot be written as ONNX: {first_line(error)}"
            raise UserError(f"{fault}; use --format safetensors") from error


def read_onnx(chosen: Checkpointed, path: Path) -> Model:
    """The file as a function of images, computed by onnxruntime on the CPU."""
    session = _required("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return run


def _traced(chosen: Checkpointed, form: str) -> torch.export.ExportedProgram:
    """The model as a graph. Raises UserError if its computation depends on the values of the images."""
    if isinstance(chosen.model, torch.jit.ScriptModule):
        raise UserError(f"a model of torch.jit cannot be exported as {form}; use --format safetensors")
    model = _Whole(chosen.model).eval()
    try:
        # Two images: torch.export takes a batch of one for a constant.
        images = torch.rand(2, *chosen.shape)
        return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # the tracer runs the model, and either may raise anything
        cause = "its computation is no fixed graph"
        if "specialized it to be a constant" in str(error):
            cause = "it fixes the number of images: write x.shape[0] where it has len(x) or a number"
        raise UserError(
            f"the model cannot be exported as {form}: {cause} ({first_line(error)}); use --format safetensors"
        ) from error


def _required(name: str) -> Any:
    return optional(name, f"--format onnx needs {name}", '"regmix[export]"')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the tracer and its libraries print, which is addressed to their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        kept = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
