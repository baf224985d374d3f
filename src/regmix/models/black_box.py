"""Models of which only the answers are known: a function, an ONNX file, or a service behind a function."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from regmix.models.base import Normalise
from regmix.models.function import Function
from regmix.runtime.files import digest
from regmix.runtime.imported import imported, optional
from regmix.types import Images, Logits, Tag, UserError, first_line

ONNX = ".onnx"
LOCATION = re.compile(rb"\n\x08location\x12")
"""Begins the name of a file with weights in an ONNX file; its length follows."""
LONGEST = 255
"""Bytes of a file's name."""


@dataclass(frozen=True)
class BlackBox(Function):
    """A black box: a function from images to classes or scores, or an ONNX file.

    The function gets a float32 tensor [B, C, H, W] in [0, 1] on the CPU and returns class numbers [B], or scores [B,
    classes], as a tensor or an array. Gradients are never used. Its code is run.
    """

    name: Tag[Literal["black-box"]] = field(default="black-box", kw_only=True)  # type: ignore[assignment]
    source: str = ""
    """The function as module:function, such as my_service:answer, or an ONNX file. Its code is run."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        if self.source.endswith(ONNX):
            path = Path(self.source)
            if not path.is_file():
                raise UserError(f"{path} does not exist; give an ONNX file")
            return Answers(_session(path), classes, _content(path))
        return Answers(imported(self.source), classes, self.source.encode())


class Answers(nn.Module):
    """The answers of a black box as logits: scores as they are, and 1 for an answered class and 0 for the others.

    Attributes:
        queries: how many images it has been asked about.
        only_classes: whether it has answered with class numbers; None before the first answer.
    """

    def __init__(self, answer: Callable[[Tensor], Any], classes: int, identity: bytes) -> None:
        """identity: what the digest of the weights stands for."""
        super().__init__()
        self._answer, self._classes = answer, classes
        self.queries = 0
        self.only_classes: bool | None = None
        key = np.frombuffer(hashlib.sha256(identity).digest(), dtype=np.uint8).copy()
        self.identity: Tensor
        self.register_buffer("identity", torch.from_numpy(key))

    def forward(self, images: Images) -> Logits:
        self.queries += len(images)
        given = self._asked(images.detach().float().cpu().contiguous())
        answers = torch.as_tensor(given).detach()
        if answers.ndim == 2 and answers.shape[1] == 1:
            answers = answers[:, 0]
        whole = not (answers.is_floating_point() or answers.is_complex() or answers.dtype == torch.bool)
        if answers.shape == images.shape[:1] and whole:
            if not ((answers >= 0) & (answers < self._classes)).all():
                raise UserError(
                    f"the model answers with class {int(answers.max())}; classes count from 0 to {self._classes - 1}"
                )
            logits = nn.functional.one_hot(answers.long(), self._classes).float()
        elif answers.shape == (len(images), self._classes) and answers.is_floating_point():
            logits = answers.float()
        else:
            raise UserError(
                f"the model answers {len(images)} images with {answers.dtype} {list(answers.shape)}; it must return "
                f"whole class numbers [{len(images)}], or floating-point scores [{len(images)}, {self._classes}]"
            )
        if self.only_classes not in (None, answers.ndim == 1):
            raise UserError("the model answers with classes once and with scores another time; return one of them")
        self.only_classes = answers.ndim == 1
        return logits.to(images.device)

    def _asked(self, images: Tensor) -> Any:
        try:
            return self._answer(images)
        except UserError:
            raise
        except Exception as error:
            # A failure at the first images has nothing to do with what came before, and would only be repeated.
            kept = "; what was finished before is kept: give the same command again" * (self.queries > len(images))
            raise UserError(
                f"the black box failed at {self.queries} images: {type(error).__name__}: {first_line(error)}{kept}"
            ) from error

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        known = state.get(f"{prefix}identity")
        if known is not None and not torch.equal(known.cpu(), self.identity.cpu()):
            raise UserError("the file of the black box has changed since; evaluate it again by its own name")
        super()._load_from_state_dict(state, prefix, *more)


def _content(path: Path) -> bytes:
    """The content of an ONNX file, and digests of the files beside it that hold its weights."""
    content = path.read_bytes()
    names = set()
    for entry in LOCATION.finditer(content):
        low, high = (content[entry.end() : entry.end() + 2] + bytes(2))[:2]
        # A number of two bytes has seven bits in each, the lower ones first.
        start, length = (entry.end() + 2, low & 127 | high << 7) if low > 127 else (entry.end() + 1, low)
        name = content[start : start + length].decode(errors="replace")
        if length <= LONGEST and name.isprintable():  # else the pattern is found within weights
            names.add(name)
    files = [path.parent / name for name in sorted(names)]
    return content + b"".join(digest(file).encode() for file in files if file.is_file())


def onnx_metadata(path: Path) -> dict[str, str]:
    """The texts by name that an ONNX file holds about itself. Raises UserError if it cannot be read."""
    return dict(_opened(path).get_modelmeta().custom_metadata_map)


def _opened(path: Path) -> Any:
    runtime = optional("onnxruntime", f"{path} needs onnxruntime", '"regmix[blackbox]"')
    try:
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path} cannot be read as ONNX: {first_line(error)}") from None


def _session(path: Path) -> Callable[[Tensor], Any]:
    """An ONNX file as a function of images: its only input and its first output, on the CPU."""
    session = _opened(path)
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise UserError(f"{path} has {len(inputs)} inputs; it must have one, the images")
    name, shape = inputs[0].name, inputs[0].shape
    if len(shape) != 4:
        raise UserError(f"{path} takes an input of shape {shape}; it must take images [B, channels, height, width]")
    fixed = shape[0]

    def answer(images: Tensor) -> Any:
        given = [*images.shape[1:]]
        wanted = [side if isinstance(side, int) else own for side, own in zip(shape[1:], given, strict=True)]
        if wanted != given:
            raise UserError(
                f"{path} takes images {'x'.join(map(str, wanted))} (channels, height, width), and these are "
                f"{'x'.join(map(str, given))}; give others, from a folder with --data.size HEIGHTxWIDTH"
            )
        # A file may be made for batches of one size only; the last batch is filled up with its last image.
        size = fixed if isinstance(fixed, int) else len(images)
        parts = []
        for part in torch.split(images, size):
            full = torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])
            parts.append(np.asarray(session.run(None, {name: full.numpy()})[0])[: len(part)])
        return np.concatenate(parts)

    return answer
