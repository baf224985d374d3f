"""The commands by their names: flags in, one call of the library each, a few lines out."""

from regmix.cli.compare import compare, sweep
from regmix.cli.evaluate import evaluate
from regmix.cli.others import bench, recipes, report
from regmix.cli.train import train

__all__ = ["bench", "compare", "evaluate", "recipes", "report", "sweep", "train"]
