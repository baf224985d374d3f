"""Recipes on scikit-learn's bundled digits."""

from regmix.data import Digits
from regmix.experiment import Experiment
from regmix.methods import RegMix
from regmix.models import SmallCnn
from regmix.threats import Linf
from regmix.training import Cyclic


def digits_regmix() -> Experiment:
    """RegMix on real 8x8 digits, bundled and without a download: a minute on any machine."""
    return Experiment(
        data=Digits(),
        model=SmallCnn(),
        threat=Linf(eps=0.15),
        method=RegMix(),
        schedule=Cyclic(),
        epochs=40,
        lr=0.1,
        validation=200,
        pad=0,
        precision="32",
    )
