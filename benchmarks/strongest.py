"""How many images each attack leaves, how many passes and seconds it takes, and what ensembles of them would leave.

python benchmarks/strongest.py RUN --examples 100 [--checkpoint last] [--threads 1] [--eps 8/255] [--data-root FOLDER]
python benchmarks/strongest.py --digits --examples 100 --ensembles strongest autoattack

With --digits the models are small networks, trained here: RegMix, PGD-2-AT, standard, and one with masked gradients.
Every attack meets all correctly classified images, alone, so that every order and every part of an ensemble can be read
off the table. Passes are counted in the model: one for a forward pass of an image, two more if it is differentiated.
The last lines give AutoAttack's worst case, that of all attacks, and which attack breaks images that no other does.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from from_runs import experiment_of, model_of
from hop_skip_jump import trained
from torch import Tensor, nn

from regmix.attacks import AUTOATTACK, Apgd, Attack, Fab, Malt, Relaxation, Square, parse_attack
from regmix.data import Digits, ImageSet, draw, load, pick
from regmix.evaluation.one_batch import attacked, predict
from regmix.methods import PgdAt, RegMix, Standard
from regmix.models import SmallCnn
from regmix.runs import Run
from regmix.runtime import devices
from regmix.threats import Linf, Threat, format_eps, parse_eps

ATTACKS: dict[str, Attack] = {
    "apgd-ce": Apgd("ce"),
    "apgd-ce, 5 restarts": Apgd("ce", restarts=5),
    "pma": Apgd("pm"),
    "apgd-t": Apgd(targets=9),
    "malt-apgd-t": Malt(),
    "malt-apgd-t, 3 targets": Malt(targets=3),
    "cr": Relaxation(),
    "fab-t": Fab(targets=9),
    "square": Square(queries=5000),
}
PARTS = {name for name, _ in AUTOATTACK.stages}


class Counted(nn.Module):
    """Counts the images that a model is asked about; those with a gradient count three times."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += len(images) * (3 if images.requires_grad else 1)
        logits: Tensor = self.model(images)
        return logits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--sample", choices=("stratified", "first"), default="stratified")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eps", type=parse_eps)
    parser.add_argument("--data-root", help="where the images are, if not where the run found them")
    parser.add_argument("--ensembles", nargs="*", default=[])
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    devices.start("cpu", "32")
    for title, model, test, threat in digits_models(flags) if flags.digits else [from_run(flags)]:
        compare(title, Counted(model.eval()), test, threat, flags.ensembles)


def from_run(flags: argparse.Namespace) -> tuple[str, nn.Module, ImageSet, Threat]:
    run = Run.open(flags.run)
    experiment = experiment_of(run, flags.data_root)
    every = load(experiment.data, "test")
    sample, positions = draw(every.labels, flags.examples, flags.sample)
    test = every.subset(positions)
    model = model_of(run, experiment, flags.checkpoint, test)
    threat = experiment.threat if flags.eps is None else replace(experiment.threat, eps=flags.eps)
    title = f"{flags.run.name} {flags.checkpoint}, {sample.text()}, {flags.threads} thread(s)"
    return title, model.to(memory_format=torch.channels_last), test, threat


class Masked(nn.Module):
    """Logits of rounded images with the gradient of a smooth wave: gradients that lead nowhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        rounded = (8 * images).round() / 8
        wave = 1e-3 * (200 * images).sin()
        logits: Tensor = self.inner(rounded.detach() + wave - wave.detach())
        return logits


def digits_models(flags: argparse.Namespace) -> Iterator[tuple[str, nn.Module, ImageSet, Threat]]:
    train, every = load(Digits(), "train"), load(Digits(), "test")
    _, positions = draw(every.labels, flags.examples, flags.sample)
    radii = {"RegMix": (RegMix(), 0.15), "PGD-2-AT": (PgdAt(steps=2), 0.15), "standard": (Standard(), 0.05)}
    for name, (method, eps) in radii.items():
        model = trained(method, train, SmallCnn(width=8), 0.15, 8)
        yield f"digits, {name}", model, every.subset(positions), Linf(eps)
        if name == "PGD-2-AT":
            yield "digits, masked", Masked(model), every.subset(positions), Linf(0.1)


def compare(title: str, model: Counted, test: ImageSet, threat: Threat, ensembles: Sequence[str]) -> None:
    x, y = pick(test, torch.arange(len(test)), torch.device("cpu"))[:2]
    clean = predict(model, x, y) == y
    x, y = x[clean], y[clean]
    print(f"{title}, {type(threat).__name__} {format_eps(threat.eps)}, {int(clean.sum())} of {len(test)} correct "
          "without an attack", flush=True)  # fmt: skip
    left: dict[str, Tensor] = {}
    for name, attack in ATTACKS.items():
        left[name], text = measure(model, attack, x, y, threat)
        print(f"  {name:24s} {text}", flush=True)
    auto = torch.stack([left[name] for name in PARTS]).all(0)
    everything = torch.stack([*left.values()]).all(0)
    print(f"  AutoAttack's parts leave {int(auto.sum())}, all attacks together {int(everything.sum())}")
    for name in left:
        others = torch.stack([values for other, values in left.items() if other.split(",")[0] != name.split(",")[0]])
        print(f"  only {name} breaks {int((others.all(0) & ~left[name]).sum())}")
    for name in ensembles:
        alive, text = measure(model, parse_attack(name), x, y, threat)
        print(f"  {name:24s} {text}; breaks {int((auto & ~alive).sum())} that AutoAttack's parts leave, leaves "
              f"{int((alive & ~auto).sum())} that they break", flush=True)  # fmt: skip


def measure(model: Counted, attack: Attack, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, str]:
    """Which images survive, and the cost as text."""
    model.passes, began = 0, time.perf_counter()
    alive = ~attacked(model, attack, x, y, threat).broken
    seconds = time.perf_counter() - began
    return alive, f"leaves {int(alive.sum()):4d}   {model.passes / len(x):8.0f} passes per image {seconds:8.1f} s"


if __name__ == "__main__":
    main()
