"""The commands that need the library, by their names: flags in, one call of the library each, a few lines out."""

from regmix.cli.bench import bench
from regmix.cli.compare import compare
from regmix.cli.diagnose import diagnose
from regmix.cli.evaluate import evaluate
from regmix.cli.export import export
from regmix.cli.predict import predict
from regmix.cli.report import report
from regmix.cli.reproduce import reproduce
from regmix.cli.sweep import sweep
from regmix.cli.train import train

__all__ = ["bench", "compare", "diagnose", "evaluate", "export", "predict", "report", "reproduce", "sweep", "train"]
