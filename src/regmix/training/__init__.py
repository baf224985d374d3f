"""Training: one step, one loop, and what surrounds them."""

from regmix.training.averaging import AveragingConfig, Ema, GatedEma, NoAveraging, Swa
from regmix.training.schedule import Constant, Cyclic, OneCycle, Piecewise, ScheduleConfig
from regmix.training.step import TrainStep

__all__ = [
    "AveragingConfig",
    "Constant",
    "Cyclic",
    "Ema",
    "GatedEma",
    "NoAveraging",
    "OneCycle",
    "Piecewise",
    "ScheduleConfig",
    "Swa",
    "TrainStep",
]
