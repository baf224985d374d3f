"""Recipes on Tiny ImageNet."""

from dataclasses import replace

from regmix.config import Experiment
from regmix.data import TinyImagenet
from regmix.methods import RegMix
from regmix.models import PreActResNet
from regmix.recipes.cifar import cifar100_regmix


def tiny_imagenet_regmix() -> Experiment:
    """RegMix on Tiny ImageNet with PreActResNet-18 (needs a GPU); the paper's weights are not published.

    The paper's settings for Tiny ImageNet are not known. Ours: the weights per example of CIFAR-100 (12/7/7), which at
    200 classes are 2400/1400/1400 in the paper's units; label mass 0.8 and the architecture of FGSM-PGK; a crop border
    of an eighth of the image, as on CIFAR.
    """
    return replace(
        cifar100_regmix(),
        data=TinyImagenet(),
        model=PreActResNet(),
        method=RegMix(alpha=2400, beta=1400, gamma=1400),
        pad=8,
    )
