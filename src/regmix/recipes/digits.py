"""Recipes on the digits that come with the package."""

from regmix.config import Cyclic, Ema, Experiment
from regmix.data import Digits
from regmix.methods import RegMix
from regmix.models import SmallCnn
from regmix.threats import Linf


def digits_regmix() -> Experiment:
    """RegMix on real 8x8 digits, bundled with the package: no download, a minute or two on any machine.

    eps is 0.15, between two and three of the 17 grey levels of the digits: a person still reads every digit, and
    standard training fails (benchmarks/LOG.md has accuracies over eps).
    """
    return Experiment(
        data=Digits(),
        model=SmallCnn(),
        threat=Linf(eps=0.15),
        method=RegMix(),
        schedule=Cyclic(),
        averaging=Ema(limit=0.98),
        epochs=40,
        validation=200,
        precision="32",
    )
