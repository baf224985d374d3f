"""Training: the session with its loop, the step, averages, weight perturbation, the guard, validation and resuming."""

from regmix.training.start import resume, run
from regmix.training.step import TrainStep

__all__ = ["TrainStep", "resume", "run"]
