"""How far from the decision boundary are the images that the later attacks of AutoAttack break?

python benchmarks/shortening.py RUN [RUN ...] --examples 600 --out FOLDER [--checkpoint best] [--threads 1]

Meets correctly classified validation images of each run, never test images. APGD-CE goes first. Of the images that it
leaves, the table tells the least share of the clean lead z_y - max z_j that APGD-CE and PMA reached, which of APGD-T's
nine targets break the image, in the order of the logits and in MALT's, and what each target reached. The budgets of
`autoattack-screened` are read off it. Everything is kept in FOLDER/NAME.pt.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from regmix.attacks import Apgd, Attack, Fab, Square
from regmix.attacks.base import likeliest_wrong
from regmix.attacks.malt import linear_distances
from regmix.config import build_model, from_json
from regmix.data import ImageSet, draw, load, pick, split_train
from regmix.evaluation.one_batch import predict
from regmix.evaluation.screening import screened
from regmix.models import load_weights
from regmix.objectives import margin
from regmix.runs import Run
from regmix.runtime import devices
from regmix.types import Images, Labels, Model

NEAR = 0.4
"""FAB-T and Square run on the images that are left with less than this share of their clean lead."""


@dataclass(frozen=True)
class OneTarget(Apgd):
    """APGD-T with the target of this rank alone."""

    rank: int = 0

    def wrong(self, model: Model, x: Images, y: Labels, logits: Tensor, threat: object) -> Tensor:
        return likeliest_wrong(logits, y, self.targets)[:, self.rank : self.rank + 1]


def validation(run: Run, experiment: object, root: str | None) -> ImageSet:
    source = experiment.data if root is None else replace(experiment.data, root=root)
    _, images = split_train(
        load(source, "train"),
        examples=experiment.train_examples,
        validation=experiment.validation,
        seed=experiment.split_seed,
    )
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(flags.threads)
    devices.start("cpu", "32")
    for path in flags.runs:
        run = Run.open(path)
        experiment = from_json(run.config(), str(path))
        every = validation(run, experiment, flags.data_root)
        _, positions = draw(every.labels, min(flags.examples, len(every)), "stratified")
        images = every.subset(positions)
        model = build_model(replace(experiment, normalise=False), images)
        load_weights(model, run.weights(flags.checkpoint))
        model = model.eval().to(memory_format=torch.channels_last)
        measure(f"{path.name} {flags.checkpoint}", model, images, experiment.threat, flags.out)


@torch.no_grad()
def measure(title: str, model: torch.nn.Module, images: ImageSet, threat: object, out: Path) -> None:
    x, y = pick(images, torch.arange(len(images)), torch.device("cpu"))[:2]
    clean = predict(model, x, y) == y
    x, y = x[clean], y[clean]
    pair = screened(model, x[:250], y[:250]) if devices.computes_in_bfloat16(x.device) else model

    def least(attack: Attack, x: Images, y: Labels) -> tuple[Tensor, float]:
        """The lead that each row is left with, by the exact model; at most 0 where it is broken."""
        began = time.perf_counter()
        delta = attack(pair, x, y, threat)
        return -margin(model(x + delta), y), time.perf_counter() - began

    lead = -margin(model(x), y)
    ce, seconds = least(Apgd("ce"), x, y)
    left = ce > 0
    x, y, lead, ce = x[left], y[left], lead[left], ce[left]
    print(
        f"{title}: {len(clean)} images, {int(clean.sum())} correct, {len(x)} left by APGD-CE, {seconds:.1f} s",
        flush=True,
    )
    pm, seconds = least(Apgd("pm"), x, y)
    print(f"  PMA breaks {int((pm <= 0).sum())}, {seconds:.1f} s", flush=True)
    logits = model(x)
    wrong = likeliest_wrong(logits, y, 9)
    order = linear_distances(model, x, y, wrong, threat).argsort(dim=1, stable=True)
    reached = []
    for rank in range(wrong.shape[1]):
        got, seconds = least(OneTarget(targets=9, rank=rank), x, y)
        reached.append(got)
        print(f"  target {rank} breaks {int((got <= 0).sum())}, {seconds:.1f} s", flush=True)
    found = {"lead": lead, "ce": ce, "pm": pm, "targets": torch.stack(reached, 1), "malt": order}
    nearest = torch.column_stack([found["targets"], ce, pm]).amin(1)
    rest = ((nearest > 0) & (nearest < NEAR * lead)).nonzero()[:, 0]
    for name, attack in {"fab": Fab(targets=9), "square": Square(queries=5000)}.items():
        got, seconds = least(attack, x[rest], y[rest])
        found[name] = torch.full_like(lead, torch.nan).index_copy_(0, rest, got)
        print(
            f"  {name} breaks {int((got <= 0).sum())} of the {len(rest)} that are left near, {seconds:.1f} s",
            flush=True,
        )
    torch.save(found, out / f"{title.replace(' ', '-')}.pt")


if __name__ == "__main__":
    main()
