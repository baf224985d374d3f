"""Everything that determines a run, as frozen dataclasses and as the text of config.json.

Settings only: nothing here trains.
"""

from regmix.config.averaging import Averaging, AveragingConfig, Ema, GatedEma, NoAveraging, Swa
from regmix.config.experiment import UNIONS, Experiment, OnNonfinite, build_model
from regmix.config.guard import Action, Guard
from regmix.config.schedule import Constant, Cosine, Cyclic, OneCycle, Piecewise, Schedule, ScheduleConfig
from regmix.config.text import from_json, to_json

__all__ = [
    "UNIONS",
    "Action",
    "Averaging",
    "AveragingConfig",
    "Constant",
    "Cosine",
    "Cyclic",
    "Ema",
    "Experiment",
    "GatedEma",
    "Guard",
    "NoAveraging",
    "OnNonfinite",
    "OneCycle",
    "Piecewise",
    "Schedule",
    "ScheduleConfig",
    "Swa",
    "build_model",
    "from_json",
    "to_json",
]
