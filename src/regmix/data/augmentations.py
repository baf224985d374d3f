"""The augmentations of an experiment together: crops, colours, erasing and mixing of whole batches on the device."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from regmix.data.crops import CropConfig, CropShift, NoCrop, Noise, ResizedCrop, inside, resized, shifted
from regmix.data.erase import EraseConfig, NoErasing
from regmix.data.mix import MixConfig, NoMix
from regmix.data.recolour import ColourConfig, NoColour, recoloured
from regmix.types import Batch, View


@dataclass(frozen=True)
class Augmentations:
    """What is done to the images of a batch beside padded crops and flips, in this order.

    All random numbers of a batch come from (seed, pass over the images, number of the batch): they do not depend on the
    device or the number of processes, and nothing has to be saved to resume.
    """

    crop: CropConfig = field(default_factory=NoCrop)
    colour: ColourConfig = field(default_factory=NoColour)
    erase: EraseConfig = field(default_factory=NoErasing)
    mix: MixConfig = field(default_factory=NoMix)

    def __bool__(self) -> bool:
        """Whether anything is done."""
        return self != Augmentations()

    def border(self, pad: int) -> int:
        """Pixels around the images that views may look into, where crops have `pad`."""
        return self.crop.most if isinstance(self.crop, CropShift) else pad

    def noise(self, seed: int, number: int, batch: int, count: int) -> Noise:
        """The random numbers of a batch of `count` images: `batch` counts within the pass `number`."""
        draws = sum(getattr(part, "draws", 0) for part in (self.crop, self.colour, self.erase, self.mix))
        # NumPy guarantees the stream of RandomState for ever. The 1 sets these numbers apart from those of the order.
        random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, number, batch, 1))))
        return torch.from_numpy(random.random_sample((count, draws)))

    def _parts(self, noise: Noise) -> list[Tensor]:
        """The random numbers of crop, colour, erase and mix."""
        counts = [getattr(part, "draws", 0) for part in (self.crop, self.colour, self.erase, self.mix)]
        return list(torch.split(noise, counts, 1))

    def look(self, view: View, noise: Noise, height: int, width: int) -> View:
        """The view that crops of this kind have, where `view` says which images are flipped."""
        if not isinstance(self.crop, CropShift):
            return view
        cut, put = self.crop.rectangles(self._parts(noise)[0], height, width)
        return shifted(view, cut, put, self.crop.most)

    def __call__(self, batch: Batch, noise: Noise, classes: int) -> Batch:
        """The batch, which shows images as `look` says, after all other operations. Changes batch.x in place."""
        crop, colour, erase, mix = self._parts(noise)
        x, (height, width) = batch.x, batch.x.shape[2:]
        hidden: Tensor | None = None
        match self.crop:
            case CropShift():
                put = inside(self.crop.rectangles(crop, height, width)[1].to(x.device), height, width)
                assert batch.view is not None, "a shifted crop has a view"
                hidden = ~torch.where(batch.view.flip[:, None, None, None], put.flip(-1), put)
                x = x.masked_fill(hidden, 0)
            case ResizedCrop():
                x = resized(x, self.crop.rectangles(crop, height, width).to(x.device)).clamp(0, 1)
        if not isinstance(self.colour, NoColour):
            x = recoloured(x, self.colour.steps(colour, height, width))
        if not isinstance(self.erase, NoErasing):
            erased = inside(self.erase.rectangles(erase, height, width).to(x.device), height, width)
            x = x.masked_fill(erased, self.erase.fill)
            hidden = erased if hidden is None else hidden | erased
        view = batch.view._replace(hidden=hidden) if batch.view is not None else None
        batch = batch._replace(x=x, view=view)
        if not isinstance(self.mix, NoMix):
            batch = self.mix(batch, noise=mix, classes=classes)
        layout = torch.channels_last if x.shape[1] > 1 else torch.contiguous_format
        return batch._replace(x=batch.x.contiguous(memory_format=layout))
