"""Recipes on CIFAR-10 and CIFAR-100."""

from dataclasses import replace

from regmix.config import Ema, Experiment, GatedEma, Piecewise
from regmix.data import Cifar10, Cifar100
from regmix.methods import FgsmPgk, RegMix
from regmix.models import ResNet
from regmix.threats import Linf


def cifar10_regmix() -> Experiment:
    """RegMix on CIFAR-10 with ResNet-18 at the paper's weights 50/20/20 and 98 epochs (needs a GPU).

    Stated by the paper: eps 8/255, ResNet-18, 98 epochs, weights 50/20/20. Taken from FGSM-PGK, which the paper builds
    on: SGD with learning rate 0.1, momentum 0.9 and weight decay 5e-4, batch size 128, crop and flip, no normalisation,
    label mass 0.5. Our choice: the learning rate drops 10 and 5 epochs before the end, as in FGSM-PGK; the weight
    average is a plain EMA of 0.999.

    Where the paper is not clear, RegMix's defaults apply: the formula as printed, gradients through all three outputs,
    means over every element (a weight of 50 then counts 5 per example), a fresh random corner, two steps of eps. In an
    ablation under the CPU recipe no other reading was more robust at its best epoch; means over examples and shorter
    steps were much less robust (benchmarks/LOG.md).
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

    The paper says only that gamma is "comparable to beta"; 700 is our choice. Label mass 0.8 is that of FGSM-PGK on
    CIFAR-100. Everything else is as in cifar10-regmix.
    """
    return replace(cifar10_regmix(), data=Cifar100(), method=RegMix(alpha=1200, beta=700, gamma=700), label_mass=0.8)


def cifar10_regmix_cpu() -> Experiment:
    """RegMix on 1,500 CIFAR-10 images with a narrow ResNet-18: minutes on 2 CPU cores, for comparing methods.

    The settings were chosen on the validation curve of PGD-2-AT alone, so that robust overfitting shows: few images, no
    random crops (they would need several times the epochs), small batches, and many epochs at the lower learning
    rate.
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
