"""The commands: flags in, one call of the library each, a few lines out."""

from regmix.commands.compare import compare, sweep
from regmix.commands.evaluate import evaluate
from regmix.commands.others import bench, recipes, report
from regmix.commands.train import train

__all__ = ["bench", "compare", "evaluate", "recipes", "report", "sweep", "train"]
