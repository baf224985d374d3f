"""Which augmentations a method can learn from."""

from regmix.data import Augmentations, NoColour, NoCrop, NoMix, ResizedCrop
from regmix.data.balance import Balance
from regmix.methods.base import Method
from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.methods.storage import PerClass
from regmix.threats import Threat
from regmix.types import require


def check_augmentations(
    augmentations: Augmentations, pad: int, balance: Balance, method: Method, threat: Threat
) -> None:
    """Raises UserError where crops exclude each other, or where the method cannot follow what is done to the images.

    A perturbation that is remembered for an image follows crops, flips and hidden pixels. It cannot follow pixels that
    are interpolated, and a mixture of two images is none of them. An image that comes twice in a batch would have two.
    """
    crop, colour, mix = augmentations.crop, augmentations.colour, augmentations.mix
    require(
        isinstance(crop, NoCrop) or pad == 0,
        f"--crop {crop.name} and --pad {pad} are both crops; use --pad 0 or --crop none",
    )
    parts, per_image = method.remembered(threat), f"{method.name} remembers a perturbation per image"
    if any(isinstance(part, PerImage) for part in parts):
        require(
            not isinstance(crop, ResizedCrop),
            f"{per_image}, which cannot follow resized crops; use --crop crop_shift or --pad",
        )
        require(
            isinstance(colour, NoColour) or not colour.moves,
            f"{per_image}, which cannot follow the operations of {colour.name} that move pixels; use --colour jitter"
            f"{', or name other --colour.operations' if hasattr(colour, 'operations') else ''}",
        )
    require(
        balance != "sampling" or not any(isinstance(part, PerImage | NumberPerImage) for part in parts),
        f"{method.name} remembers something per image, and --balance sampling repeats images; use --balance loss",
    )
    if isinstance(mix, NoMix):
        return
    if any(isinstance(part, PerImage | NumberPerImage | PerClass) for part in parts):
        kept = "class" if any(isinstance(part, PerClass) for part in parts) else "image"
        require(
            False,
            f"{method.name} remembers something per {kept}, and {mix.name} shows two in one image; use --mix none",
        )
    require(
        not method.hard_labels,
        f"{method.name} needs one class per image, and {mix.name} mixes two; use --mix none or another method",
    )
