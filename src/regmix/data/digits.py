"""The 8x8 digits that come with the package and need no download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from regmix.data.images import ImageSet, Split
from regmix.data.splits import stratified_order
from regmix.types import Tag

TEST_IMAGES = 500
FILE = Path(__file__).with_name("digits.npz")
"""Written by `digits_file`; its licence is in digits.LICENSE.txt."""


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Handwritten digits, which come with the package: 1,297 training and 500 test images, 8x8 grey, 10 classes.

    Source: UCI Optical Recognition of Handwritten Digits, test part, as in scikit-learn's load_digits.
    """

    name: Tag[Literal["digits"]] = "digits"

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 1, 8, 8]: round(v * 255 / 16) of the original grey values v in 0..16.

        The split is stratified and the same for every seed.
        """
        with np.load(FILE, allow_pickle=False) as arrays:
            images = torch.from_numpy(np.rint(arrays["images"] * (255 / 16)).astype(np.uint8)).unsqueeze(1)
            labels = torch.from_numpy(arrays["labels"].astype(np.int64))
        order = stratified_order(labels, seed=0)
        chosen = order[:TEST_IMAGES] if split == "test" else order[TEST_IMAGES:]
        chosen = chosen.sort().values
        return ImageSet(images[chosen], labels[chosen], tuple(str(digit) for digit in range(10)))
