"""What the scripts that attack the models of run directories share: their flags, and how they load a model."""

import argparse
from dataclasses import replace
from pathlib import Path

from torch import nn

from regmix.config import Experiment, build_model, from_json
from regmix.data import ImageSet
from regmix.models import load_weights
from regmix.runs import Run


def parser_for_runs(about: str | None, examples: int) -> argparse.ArgumentParser:
    """Reads RUN [RUN ...] --examples N --out FOLDER, the checkpoint, the threads, and where the images are."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--examples", type=int, default=examples)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root", help="where the images are, if not where the run found them")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def experiment_of(run: Run, data_root: str | None = None) -> Experiment:
    """The settings of a run, with its images in another folder if asked."""
    experiment = from_json(run.config(), str(run.path))
    data = experiment.data if data_root is None else replace(experiment.data, root=data_root)
    return replace(experiment, data=data)


def model_of(run: Run, experiment: Experiment, checkpoint: str, images: ImageSet) -> nn.Module:
    """The model of a checkpoint, in evaluation mode; its normalisation comes with its weights."""
    model = build_model(replace(experiment, normalise=False), images)
    load_weights(model, run.weights(checkpoint))
    return model.eval()
