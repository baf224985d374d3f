"""Cases of the FastAT Benchmark (arXiv 2604.22853), whose classes train a given model with a given optimizer."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from public_code.case import Case
from public_code.net import CLASSES
from public_code.scripts import run_script
from public_code.standins import Anything
from public_code.world import World

from regmix import methods as m

REPOSITORY = "fzjcdt/FastAT_Benchmark"
EPS = 8 / 255


def runs(
    kind: str, *, index: bool = False, replace: dict[str, str] | None = None, **config: Any
) -> Callable[[World, Path], None]:
    """Trains with one of the benchmark's classes, without averaging; `replace` changes its text in memory."""

    def run(world: World, folder: Path) -> None:
        trainer = getattr(importlib.import_module("fast_at"), kind)
        if replace:
            file = str(importlib.import_module(trainer.__module__).__file__)
            trainer = run_script(Path(file), {}, replace, package="fast_at")[kind]
        images = len(world.images[0]) * world.per_epoch
        shape = (images, *world.images[0].shape[1:])
        settings = {
            "eps": EPS, "weight_average": False, "label_smoothing": None, "total_epoch": world.epochs,
            "num_classes": CLASSES, "class_num": CLASSES, "training_shape": shape, "image_size": shape[-1],
        } | config  # fmt: skip
        training = trainer(world.model, config=settings)
        training._validate_model = lambda *_: {"val_acc": 0, "fgsm_acc": 0, "pgd_acc": 0}
        training.train(world.optimizer(), Anything(), world.loader(index=index), [])

    return run


def case(method: m.Method, kind: str, *, settings: dict[str, Any] | None = None, **about: Any) -> Case:
    given = dict(settings or {})
    return Case(method, REPOSITORY, runs(kind, **given), **about)
