"""Recipes with the protocol of the FastAT benchmark, to compare any method with its published table."""

from dataclasses import replace

from regmix.config import Ema, Experiment, OneCycle
from regmix.data import Cifar10, Cifar100, TinyImagenet
from regmix.methods import RegMix
from regmix.models import PreActResNet, ResNet
from regmix.threats import Linf


def fastat_cifar10() -> Experiment:
    """The FastAT benchmark's protocol on CIFAR-10 with ResNet-18, for any --method (needs a GPU).

    Source: arXiv 2604.22853 and its code. 100 epochs, batch size 128, SGD with learning rate 0.1 and weight decay 5e-4
    under torch's OneCycleLR, stepped once an epoch (it cycles the momentum between 0.95 and 0.85), crop 4 and flip,
    label smoothing 0.4 (the mixture with the uniform distribution, which leaves a mass of 1 - 0.4 (C - 1) / C on the
    true class), weight average 0.9995, `best` chosen by PGD-10 on 1,000 validation images among the weights and their
    average; three seeds.
    Deviations: the validation images are drawn evenly from the classes (there: the last 1,000), the average follows
    the weights more closely in its first 18,000 steps, and methods attack the hard label where their papers do (there:
    the smoothed one). The published runs use each method's settings in configs/, such as a reset every 40 epochs for
    FGSM-MEP on every data set.

    Other differences: gat's attack there takes the softmax of the output twice in every other step; pgd_at attacks
    with BatchNorm in evaluation mode (here: attack_batchnorm="eval"), nu_at in train mode (here: in evaluation mode, as
    published); free_at has 4 replays over 50 passes, and every batch starts from no perturbation (here: from the last
    batch's, as published); runs without a weight average are tested on their last weights, the others on their best.
    liet smooths its labels itself there: add --label-mass 1. elle has noise 1, step_size 1.25 and lam 1 there.
    """
    return Experiment(
        data=Cifar10(),
        model=ResNet(),
        threat=Linf(eps=8 / 255),
        method=RegMix(),
        schedule=OneCycle(),
        averaging=Ema(limit=0.9995),
        epochs=100,
        label_mass=_mass(10),
        pad=4,
        flip=True,
        validation=1000,
        best_of="either",
    )


def fastat_cifar100() -> Experiment:
    """The FastAT benchmark's protocol on CIFAR-100 with ResNet-18, for any --method (needs a GPU)."""
    return replace(
        fastat_cifar10(),
        data=Cifar100(),
        method=RegMix(alpha=1200, beta=700, gamma=700),
        label_mass=_mass(100),
    )


def fastat_tiny_imagenet() -> Experiment:
    """The FastAT benchmark's protocol on Tiny ImageNet with PreActResNet-18, for any --method (needs a GPU).

    2,000 validation images; no BatchNorm between the last block and the pool (models/preact_resnet.py there). RegMix's
    weights are those of tiny-imagenet-regmix; the paper's are not published.
    """
    return replace(
        fastat_cifar10(),
        data=TinyImagenet(),
        model=PreActResNet(final_norm=False),
        method=RegMix(alpha=2400, beta=1400, gamma=1400),
        label_mass=_mass(200),
        validation=2000,
    )


def fastat_cifar10_cpu() -> Experiment:
    """The FastAT protocol, reduced: 2,000 CIFAR-10 images, ResNet-18 of width 16, 30 epochs; minutes on 2 CPU cores.

    The average is shorter, like the training: 0.99 covers 5% of the steps, as 0.9995 does in the original.
    """
    return replace(
        fastat_cifar10(),
        model=ResNet(width=16),
        averaging=Ema(limit=0.99),
        epochs=30,
        batch_size=32,
        train_examples=2000,
        validation=500,
        validate_every=5,
    )


def _mass(classes: int) -> float:
    return 1 - 0.4 * (classes - 1) / classes
