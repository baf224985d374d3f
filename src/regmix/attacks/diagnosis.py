"""Explains to the user why a model fails: its output, the labels or the images do not fit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from regmix.runtime.borrowed import borrowed
from regmix.types import Batch, Model, UserError, first_line, require

IN_PLACE = (
    "the model changes its input in place (sub_, div_, clamp_ or the like), so attacks and losses would "
    "see other images: write x = x - mean instead, or begin with x = x.clone()"
)


def logits_in(logits: object, count: int) -> Tensor:
    """Returns a model's output if it is logits [count, classes].

    Raises:
        UserError: it is something else; the message says what, and how to return logits.
    """
    if isinstance(logits, Tensor):
        if logits.ndim == 2 and len(logits) == count:
            require(
                logits.shape[1] > 1,
                "the model has one output; it must return one logit per class, and two for a binary decision",
            )
            return logits
        output, remedy = f"{list(logits.shape)} for {count} images", ""
    elif isinstance(logits, tuple | list):
        output = f"a {type(logits).__name__} of {len(logits)}"
        remedy = ": wrap it in a module whose forward returns the right one, such as model(x)[0]"
    elif isinstance(logits, Mapping):
        output = f"a {type(logits).__name__} of {', '.join(map(str, logits)) or 'nothing'}"
        key = "logits" if len(logits) != 1 else next(iter(logits))
        remedy = f': wrap it in a module whose forward returns the right one, such as model(x)["{key}"]'
    else:
        output = f"a {type(logits).__name__}"
        remedy = ": wrap it in a module whose forward returns them, such as model(x).logits"
    raise UserError(f"the model returns {output}; it must return one tensor of logits [{count}, classes]{remedy}")


@contextmanager
def explained(model: Model, batch: Batch) -> Iterator[None]:
    """Turns an exception inside the block into a UserError if one more call of the model shows the cause.

    Every other exception is raised unchanged, and so is a lack of memory.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        _explain(model, batch)
        raise error


def _explain(model: Model, batch: Batch) -> None:
    x, y = batch.x, batch.target
    with borrowed(model), torch.no_grad():
        try:
            logits = model(x)
        except torch.OutOfMemoryError:
            return
        except Exception as error:
            first = first_line(error)
            kind = str(x.dtype).removeprefix("torch.")
            hint = "; channels come first: x.permute(0, 3, 1, 2)" if x.shape[3] in (1, 3, 4) else ""
            raise UserError(f"the model fails on {kind} images {list(x.shape)} on {x.device}: {first}{hint}") from error
    logits_in(logits, len(x))
    classes = logits.shape[1]
    if y.ndim == 2 and y.shape[1] != classes:
        raise UserError(f"labels are probabilities of {y.shape[1]} classes, but the model has {classes}")
    if y.ndim == 1 and not y.is_meta and int(y.max()) >= classes:
        raise UserError(f"labels reach {int(y.max())} but the model has {classes} classes")
