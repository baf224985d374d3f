"""What each part of a recipe is worth, one at a time and together, measured without test images.

python benchmarks/parts.py cifar10-regmix-cpu --methods regmix,liet,fgsm_pgk --seeds 3 --out runs/parts

Trains the recipe with a moving average of the weights and none of the other parts (base), then with every part alone,
for every method and seed. The best weights are chosen on validation images, as always. Parts are then judged by the
accuracy of these weights under PGD-10 on other images: training images that the recipe does not use. Intervals and p
cover these images and the seeds (see regmix.reports.statistics.difference); p is adjusted for the number of parts by
Holm's method.

A part is kept if its gain is above 0 with a p below 0.1 before the adjustment, so about one useless part in twenty is
kept by chance. The kept parts are trained together, and they and the base with new seeds, which are judged alone: the
choice cannot flatter that result.

The base has the moving average because augmentations are known to help together with it; without-average says what it
is worth. What 1,500 images and 45 epochs say about augmentation need not hold for 50,000 and 100. A part that a method
refuses, or has already, is listed with the reason. Finished runs are not repeated, and runs of other settings refused.
Writes METHOD.json, and prints a table per method.
"""

import argparse
import io
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

from regmix.attacks import parse_attacks
from regmix.cli.train import parse_training
from regmix.config import to_json
from regmix.data import ImageSet, fingerprint, load
from regmix.data.splits import stratified_order
from regmix.evaluation.assessment import Assessment, missing
from regmix.evaluation.questions import Questions
from regmix.evaluation.subject import EvaluationImages, choose_images
from regmix.jobs.console import ConsoleDisplay
from regmix.reports.load import load as load_run
from regmix.reports.statistics import difference, holm
from regmix.runs import Run
from regmix.studies.compare import overridden
from regmix.studies.trainings import Planned, reaching_trainings, train_all
from regmix.types import UserError

BASE = (
    "--averaging ema --averaging.limit {limit} --best-of either --crop none --colour none --erase none --mix none "
    "--awp 0 --ramp 0 --label-mass 1 --model.activation relu"
)
"""The moving average, and none of the other parts, whatever the recipe has of them."""
PARTS = {
    "without-average": "--averaging none --best-of weights",
    "awp": "--awp 0.005 --awp-warm-up {half}",
    "silu": "--model.activation silu",
    "crop-shift": "--pad 0 --crop crop_shift --crop.most 10",
    "colour": "--colour idbh",
    "erase": "--erase random",
    "cutmix": "--mix cutmix",
    "ramp": "--ramp 1 --ramp-of terms",
    "labels-even": "--label-mass 0.6",
    "labels-random": "--label-mass 0.6 --label-rest random",
    "cosine": "--schedule cosine",
}
"""ramp: of all terms but the classification."""
INSTEAD = {"labels-even": "labels-random"}
"""Of two kept parts that exclude each other, the one with the larger gain is taken."""
OWN = {"liet": ("ramp", "labels-even", "labels-random")}
"""Parts that a method has already."""
KEPT, CLEAR = 0.1, 0.05


@dataclass
class Row:
    """An arm of the table: its runs' accuracies [seeds, images] under PGD-10 and clean, and how it compares."""

    name: str
    robust: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    clean: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    seconds: float = 0.0
    gain: tuple[float, float, float, float] | None = None
    """Difference to the base, the ends of its interval, and p."""
    adjusted: float = 1.0
    why_not: str = ""

    @property
    def is_kept(self) -> bool:
        return self.gain is not None and self.gain[0] > 0 and self.gain[3] < KEPT


class Ablation:
    """The runs of one method."""

    def __init__(self, given: argparse.Namespace, method: str, images: Path) -> None:
        self.given, self.method, self.images = given, method, images
        epochs = parse_training([given.recipe, *given.flags.split()])[1].experiment.epochs
        self.texts = {"limit": given.limit, "half": epochs // 2}
        self.console = Console()

    def planned(self, name: str, flags: str, seed: int) -> Planned:
        """The run of an arm and a seed. Raises UserError if the method refuses its flags."""
        last = f"--data parquet --data.root {self.images} --method {self.method} --seed {seed} {self._channels()}"
        words = [self.given.recipe]
        for text in (BASE, self.given.flags, flags, last):
            words = overridden(words, text.format(**self.texts).split())
        experiment = parse_training(list(words))[1].experiment
        return Planned(self.given.out / self.method / f"{name}-seed{seed}", words, experiment)

    def _channels(self) -> str:
        return "--data.channels grey" if json.loads((self.images / "images.json").read_text())["channels"] == 1 else ""

    def rows(self, arms: dict[str, str], seeds: range) -> list[Row]:
        """The arms, the base first, trained with these seeds and evaluated."""
        plans: dict[str, list[Planned]] = {}
        rows = []
        for name, flags in arms.items():
            if name in OWN.get(self.method, ()):
                rows.append(Row(name, why_not=f"{self.method} has its own"))
                continue
            try:
                plans[name] = [self.planned(name, flags, seed) for seed in seeds]
            except UserError as error:
                if name == "base":
                    raise
                rows.append(Row(name, why_not=f"refused: {error}"))
        everything = [run for of_seed in zip(*plans.values(), strict=True) for run in of_seed]
        for run in everything:
            run.check()
        with reaching_trainings():
            failed = train_all([run for run in everything if not run.is_finished], self.given.workers, self.console)
        questions = Questions(parse_attacks("clean,pgd-10"), [], None, verdict=False)
        test = choose_images(everything[0].experiment.data, None)
        found = []
        for name, runs in plans.items():
            if lost := [str(failed[run.path]) for run in runs if run.path in failed]:
                rows.append(Row(name, why_not=lost[0]))
                continue
            outcomes = [self._outcome(run, questions, test) for run in runs]
            robust, clean = (np.stack([one[place] for one in outcomes]) for place in (0, 1))
            seconds = statistics.mean(Run.open(run.path).result().train_seconds or 0.0 for run in runs)
            found.append(Row(name, robust, clean, seconds))
        base = found[0] if found else None
        if base is None or base.name != "base":
            raise UserError(next(row.why_not for row in rows if row.name == "base"))
        for row in found[1:]:
            row.gain = difference(row.robust, base.robust)
        # Among several pairs p has at most the degrees of freedom of the seeds.
        several = [difference(row.robust, base.robust, len(found) - 1)[3] for row in found[1:]]
        for row, p in zip(found[1:], holm(several), strict=True):
            row.adjusted = p
        return [*found, *rows]

    def _outcome(self, run: Planned, questions: Questions, test: EvaluationImages) -> tuple[np.ndarray, np.ndarray]:
        record = Run.open(run.path)
        for asked in missing(record, questions, test, ["best"]):
            with ConsoleDisplay(Console(file=io.StringIO())) as display:
                Assessment(record, asked, test, run.experiment.trust()).run(["best"], "auto", display)
        survives = load_run(run.path).outcomes["best"].survives
        (name,) = [name for name in survives if name.startswith("pgd-10")]
        return survives[name], survives["clean"]


def written(given: argparse.Namespace) -> Path:
    """A folder of images whose test split is training images that the recipe does not use; made once."""
    experiment = parse_training([given.recipe, *given.flags.split()])[1].experiment
    train = load(experiment.data, "train").resident()
    order = stratified_order(train.labels, experiment.split_seed)
    validation = 1000 if experiment.validation is None else experiment.validation
    used = len(train) - given.images
    if experiment.train_examples is not None:
        used = min(used, experiment.train_examples + validation)
    if used < 1:
        raise UserError(f"--images {given.images}: the training split has {len(train)}")
    folder = given.out / "images"
    about = {
        "data": json.loads(to_json(experiment))["data"], "pixels": fingerprint(train).digest, "used": used,
        "fresh": given.images, "channels": train.images.shape[1], "split_seed": experiment.split_seed,
    }  # fmt: skip
    note = folder / "images.json"
    if note.exists():
        if json.loads(note.read_text()) != about:
            raise UserError(f"{folder} holds the images of other settings; give another --out")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for split, places in (("train", order[:used]), ("test", order[used : used + given.images])):
        _write(train.subset(places.sort().values), folder / f"{split}-00000.parquet")
    note.write_text(json.dumps(about) + "\n")
    return folder


def _write(images: ImageSet, path: Path) -> None:
    encoded = []
    for pixels in images.images.numpy():
        file = io.BytesIO()
        Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)).save(file, "png")
        encoded.append({"bytes": file.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(encoded, kind), "label": pa.array(images.labels.tolist(), pa.int64())})
    names = {"info": {"features": {"label": {"_type": "ClassLabel", "names": [*images.classes]}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), path)


def table(title: str, rows: list[Row]) -> str:
    """Accuracies and gains in per cent, as Markdown; times in those of the base."""
    lines = [f"| {title} | clean | PGD-10 | gain [95 % interval] | p, adjusted | time | |", "|---" * 7 + "|"]
    for row in rows:
        if row.why_not:
            lines.append(f"| {row.name} | | | {row.why_not} | | | |")
            continue
        gain = "" if row.gain is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * one for one in row.gain[:3]))
        p = "" if row.gain is None else f"{row.adjusted:.2g}"
        mark = ("kept, clear" if row.adjusted < CLEAR else "kept") if row.is_kept else ""
        time = f"{row.seconds / rows[0].seconds:.2f}" if rows[0].seconds else ""
        accuracies = f"{100 * row.clean.mean():.1f} | {100 * row.robust.mean():.1f}"
        lines.append(f"| {row.name} | {accuracies} | {gain} | {p} | {time} | {mark} |")
    return "\n".join(lines)


def record(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "part": row.name, "why_not": row.why_not, "gain": row.gain, "p_adjusted": row.adjusted,
            "kept": row.is_kept, "train_seconds": row.seconds,
            "robust": [float(one.mean()) for one in row.robust], "clean": [float(one.mean()) for one in row.clean],
        }
        for row in rows
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--methods", default="regmix,liet", help="separated by commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="on which the parts are judged")
    parser.add_argument("--limit", type=float, default=0.99, help="of the moving average")
    parser.add_argument("--flags", default="", help="further flags of regmix train, for every run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    asked = given.parts.split(",")
    if unknown := [name for name in asked if name not in PARTS]:
        parser.error(f"--parts {unknown[0]}: choose from {', '.join(PARTS)}")
    if given.seeds < 2:
        parser.error("--seeds: at least 2, because one says nothing about another training")
    try:
        images = written(given)
        for method in given.methods.split(","):
            ablation = Ablation(given, method, images)
            arms = {"base": "", **{name: PARTS[name] for name in PARTS if name in asked}}
            rows = ablation.rows(arms, range(given.seeds))
            print(table(method, rows), flush=True)
            kept = {row.name: row for row in rows if row.is_kept}
            for one, other in INSTEAD.items():
                if one in kept and other in kept:
                    kept.pop(min((one, other), key=lambda name: kept[name].robust.mean()))
            found = {"parts": record(rows), "kept": [*kept], "together": []}
            if kept:
                together: list[str] = []
                for name in kept:
                    together = overridden(together, PARTS[name].split())
                new = range(given.seeds, 2 * given.seeds)
                label = f"together-{'-'.join(kept)}"
                rows = ablation.rows({"base": "", label: " ".join(together)}, new)
                print(f"\n{table(f'{method}, new seeds', rows)}", flush=True)
                found["together"] = record(rows)
            (given.out / f"{method}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
