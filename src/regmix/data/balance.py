"""Classes of unequal size that count equally: by the importance of their images, or by how often they are shown."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

Balance = Literal["none", "loss", "sampling"]


def class_importance(labels: Int64[Tensor, "examples"], classes: int) -> Float[Tensor, "classes"]:
    """N / (K n_c) for a class of n_c of N images, where K classes have images: the mean over all images is 1.

    Classes without images have 0.
    """
    counts = torch.bincount(labels, minlength=classes)
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp_min(1)), 0.0).float()


def balanced_deck(labels: Int64[Tensor, "examples"], seed: int, number: int) -> Int64[Tensor, "examples"]:
    """The images of a pass in which each of K classes comes N / K times, rounded up or down; sorted by class.

    The images of a class come equally often, plus or minus one. Which ones come more often, and which classes get the
    remainder, is drawn anew in every pass: from (seed, number) alone.
    """
    # The 2 sets these numbers apart from those of the order and of the augmentations.
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, number, 0, 2))))
    present = np.unique(labels.numpy())
    shares = np.full(len(present), len(labels) // len(present))
    shares[random.permutation(len(present))[: len(labels) % len(present)]] += 1
    deck = []
    for label, share in zip(present, shares, strict=True):
        own = np.flatnonzero(labels.numpy() == label)
        rounds = -(-share // len(own))
        deck.append(np.concatenate([random.permutation(own) for _ in range(rounds)])[:share])
    return torch.from_numpy(np.concatenate(deck))
