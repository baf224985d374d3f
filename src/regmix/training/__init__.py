"""Training: the session with its loop, the step, averages, weight perturbation, the guard, validation and resuming.

May import everything but studies, reports and the command line; studies and the command line import it.
"""

from regmix.training.start import resume, run
from regmix.training.step import TrainStep

__all__ = ["TrainStep", "resume", "run"]
