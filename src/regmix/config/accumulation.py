"""Which methods can learn from a batch that is computed in parts."""

from regmix.config.averaging import AveragingConfig, GatedEma
from regmix.methods.base import Method
from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.threats import Threat
from regmix.types import require


def check_accumulation(parts: int, batch_size: int, method: Method, threat: Threat, averaging: AveragingConfig) -> None:
    """Raises UserError where a batch cannot be computed in this many parts, or where the method needs it whole.

    What is remembered for an image is read and written once per step, whatever the parts. What is remembered for a row
    of the batch, for a class or for all images would change from one part to the next.
    """
    require(
        1 <= parts <= batch_size,
        f"accumulate is {parts}; it must lie in 1..{batch_size}, the images of a batch",
    )
    require(
        parts == 1 or not isinstance(averaging, GatedEma),
        "gated_ema counts the correct predictions of a whole batch, which --accumulate divides; use --averaging ema",
    )
    require(
        parts == 1 or all(isinstance(part, PerImage | NumberPerImage) for part in method.remembered(threat)),
        f"{method.name} remembers something from one batch to the next, which it would change in every part of a "
        "batch; use --accumulate 1, with a smaller --batch-size where memory is short",
    )
