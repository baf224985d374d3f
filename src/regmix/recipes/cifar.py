"""Recipes on CIFAR-10 and CIFAR-100."""

from dataclasses import replace

from regmix.config import Ema, Experiment, GatedEma, Piecewise
from regmix.data import Cifar10, Cifar100
from regmix.methods import FgsmPgk, RegMix
from regmix.models import ResNet
from regmix.threats import Linf


def cifar10_regmix() -> Experiment:
    """RegMix on CIFAR-10 with ResNet-18 at the paper's weights 50/20/20 and 98 epochs (needs a GPU).

    Stated by the paper: eps 8/255, ResNet-18, 98 epochs, 50/20/20. Inferred from FGSM-PGK, which it builds on: SGD
    0.1/0.9/5e-4, batch 128, crop and flip, no normalisation, label mass 0.5. Ours: the learning rate drops 10 and 5
    epochs before the end, as FGSM-PGK's does; the average that is kept beside the weights is a plain EMA of 0.999.

    What the paper leaves open is read as RegMix's defaults say: the formula as printed, gradients through all three
    outputs, means over every element (which makes 50 worth 5 per example), a fresh corner, two steps of eps. In the
    ablation under the CPU recipe no other reading was more robust at its best epoch, and means over examples and
    shorter steps were far less (benchmarks/LOG.md).
    """
    return Experiment(
        data=Cifar10(),
        model=ResNet(),
        threat=Linf(eps=8 / 255),
        method=RegMix(alpha=50, beta=20, gamma=20),
        schedule=Piecewise(milestones=(88, 93)),
        averaging=Ema(),
        epochs=98,
        label_mass=0.5,
        pad=4,
        flip=True,
    )


def cifar10_fgsm_pgk() -> Experiment:
    """FGSM-PGK on CIFAR-10 with ResNet-18 at its published setting, 110 epochs (needs a GPU)."""
    return replace(
        cifar10_regmix(),
        method=FgsmPgk(lam=5.6, mu=0.3, reset=10),
        schedule=Piecewise(milestones=(100, 105)),
        averaging=GatedEma(threshold=0.82),
        epochs=110,
    )


def cifar100_regmix() -> Experiment:
    """RegMix on CIFAR-100 with ResNet-18 at the paper's weights 1200/700 (needs a GPU).

    gamma is only known to be "comparable to beta": 700. Label mass 0.8 as in FGSM-PGK on CIFAR-100; the rest as in
    cifar10-regmix.
    """
    return replace(cifar10_regmix(), data=Cifar100(), method=RegMix(alpha=1200, beta=700, gamma=700), label_mass=0.8)


def cifar10_regmix_cpu() -> Experiment:
    """RegMix on 1,500 CIFAR-10 images with a narrow ResNet-18: minutes on 2 CPU cores, for comparing methods.

    Chosen so that robust overfitting shows, on the validation curve of PGD-2-AT alone: few images, no random crops
    (which would need several times the epochs), small batches, and a long stretch at the lower learning rate.
    """
    return Experiment(
        data=Cifar10(),
        model=ResNet(width=16),
        threat=Linf(eps=8 / 255),
        method=RegMix(),
        schedule=Piecewise(milestones=(20,)),
        averaging=Ema(),
        epochs=45,
        batch_size=32,
        lr=0.05,
        train_examples=1500,
        validation=500,
        validate_every=5,
        flip=True,
    )
