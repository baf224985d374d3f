"""What a user can mend where a model fails: its output, the labels, the images that it is given."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from regmix.attacks.base import borrowed
from regmix.types import Batch, Model, UserError

IN_PLACE = (
    "the model changes its input in place (sub_, div_, clamp_ or the like), so that attacks and losses would "
    "be about other images: write x = x - mean instead, or begin with x = x.clone()"
)


def check_logits(logits: object, images: int) -> None:
    """Raises UserError unless they are logits [images, classes] of at least two classes."""
    if not isinstance(logits, Tensor):
        raise UserError(f"the model returns {type(logits).__name__}; it must return logits [{images}, classes] alone")
    if logits.ndim != 2 or len(logits) != images:
        raise UserError(
            f"the model returns {list(logits.shape)} for {images} images; it must return logits [{images}, classes]"
        )
    if logits.shape[1] < 2:
        raise UserError("the model has one output; it must return a logit per class, two for a yes or no")


@contextmanager
def explained(model: Model, batch: Batch) -> Iterator[None]:
    """Turns an exception inside the block into a UserError where the model, asked once more, shows why.

    Another exception stays as it is, and so does a lack of memory.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        _explain(model, batch)
        raise error


def _explain(model: Model, batch: Batch) -> None:
    x, y = batch.x, batch.y
    with borrowed(model), torch.no_grad():
        try:
            logits = model(x)
        except torch.OutOfMemoryError:
            return
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            kind = str(x.dtype).removeprefix("torch.")
            hint = "; channels come first: x.permute(0, 3, 1, 2)" if x.shape[3] in (1, 3, 4) else ""
            raise UserError(f"the model fails on {kind} images {list(x.shape)} on {x.device}: {first}{hint}") from error
    check_logits(logits, len(x))
    classes = logits.shape[1]
    if y.ndim == 2 and y.shape[1] != classes:
        raise UserError(f"labels are probabilities of {y.shape[1]} classes, but the model has {classes}")
    if y.ndim == 1 and not y.is_meta and int(y.max()) >= classes:
        raise UserError(f"labels reach {int(y.max())} but the model has {classes} classes")
