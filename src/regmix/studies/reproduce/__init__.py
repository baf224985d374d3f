"""The paper as one command: experiments and claims as data, their trainings and attacks, and computed verdicts."""

from regmix.studies.reproduce.catalogue import NAMES, ON_OTHER_DATA, STUDIES
from regmix.studies.reproduce.claims import Arm, Study
from regmix.studies.reproduce.flat import Measured, measure
from regmix.studies.reproduce.runner import Runner
from regmix.studies.reproduce.scales import SCALES, Scale, ScaleName
from regmix.studies.reproduce.write import CLAIMS, PAGE, write

__all__ = [
    "CLAIMS",
    "NAMES",
    "ON_OTHER_DATA",
    "PAGE",
    "SCALES",
    "STUDIES",
    "Arm",
    "Measured",
    "Runner",
    "Scale",
    "ScaleName",
    "Study",
    "measure",
    "write",
]
