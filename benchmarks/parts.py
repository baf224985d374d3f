"""What each part of a recipe is worth, one at a time and together, measured on validation images alone.

python benchmarks/parts.py cifar10-regmix-cpu --methods regmix,liet --seeds 3 --out runs/parts

Trains the recipe without the parts, with every part alone, and with all parts whose gain is clear, for every method and
seed. A part's gain is the paired difference, over the seeds, of the best validation accuracy under PGD-10; the interval
is Student's t at 95 %. It is clear if the interval lies above 0. Test images are not looked at. Finished runs are not
repeated, interrupted ones are continued, and a part that a method refuses is listed with the reason. Prints a table per
method and writes parts.json.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from scipy import stats

from regmix.cli.entry import main as regmix
from regmix.recipes import recipe
from regmix.runs import Run

BASE = "--averaging none --label-mass 1"
"""What a recipe has of the parts is taken from it."""
PARTS = {
    "awp": "--awp 0.005 --awp-warm-up {half}",
    "ema": "--averaging ema --averaging.limit {limit} --best-of either",
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
INSTEAD = {"labels-even": "labels-random"}
"""Of two clear parts that exclude each other, the one with the larger gain is taken."""


def trained(given: argparse.Namespace, method: str, name: str, flags: str, seed: int) -> dict[str, float] | str:
    """Validation accuracies of a run, trained unless it is finished; or the line with which it is refused."""
    out = given.out / method / name / f"seed-{seed}"
    settings = merged(BASE, given.flags, flags, f"--seed {seed} --out {out}")
    words = ["train", given.recipe, "--method", method, *settings]
    if not (finished := _is_finished(out)):
        command = ["train", "--resume", str(out)] if out.is_dir() else words
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = regmix(command)
        sys.stderr.write(said.getvalue())
        line = (said.getvalue().strip().splitlines() or [""])[-1].removeprefix("regmix: error: ")
        if code == 2 and not out.is_dir() and not line.startswith("unknown"):
            return line
        finished = code == 0
    if not finished:
        raise SystemExit(f"{out} could not be trained")
    run = Run.open(out, writes=False)
    last = next(row.validation for row in reversed(run.metrics()) if row.validation is not None)
    best = run.result().best_pgd
    assert best is not None
    return {"best": best, "last": last["pgd"], "clean": last["clean"]}


def merged(*texts: str) -> list[str]:
    """The flags of all texts, each with its last value."""
    values: dict[str, list[str]] = {}
    for text in texts:
        name = ""
        for word in text.split():
            if word.startswith("--"):
                name = word
                values[name] = []
            else:
                values[name].append(word)
    return [word for name, given in values.items() for word in (name, *given)]


def _is_finished(out: Path) -> bool:
    return out.is_dir() and Run.open(out, writes=False).result().status == "finished"


def gain(part: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, float]:
    """Mean paired difference of the best accuracies, and the ends of its interval."""
    differences = [one["best"] - other["best"] for one, other in zip(part, base, strict=True)]
    mean = statistics.mean(differences)
    reach = float("inf")
    if len(differences) > 1:
        deviation = statistics.stdev(differences) / len(differences) ** 0.5
        reach = float(stats.t.ppf(0.975, len(differences) - 1)) * deviation
    return {"gain": mean, "low": mean - reach, "high": mean + reach}


def ablation(given: argparse.Namespace, method: str) -> dict[str, Any]:
    """All runs of a method: accuracies by part and seed, gains, refusals, and the parts that were put together."""
    base = [trained(given, method, "base", "", seed) for seed in range(given.seeds)]
    if isinstance(base[0], str):
        raise SystemExit(base[0])
    found: dict[str, Any] = {"base": {"runs": base}}
    settings = {"half": given.epochs // 2, "limit": given.limit}
    flags = {name: text.format(**settings) for name, text in PARTS.items() if name in given.parts}
    for name, text in flags.items():
        runs = [trained(given, method, name, text, seed) for seed in range(given.seeds)]
        refused = isinstance(runs[0], str)
        found[name] = {"refused": runs[0]} if refused else {"runs": runs, **gain(runs, base)}  # type: ignore[arg-type]
    clear = [name for name in flags if found[name].get("low", 0) > 0]
    for one, other in INSTEAD.items():
        if one in clear and other in clear:
            clear.remove(min((one, other), key=lambda name: float(found[name]["gain"])))
    if len(clear) > 1:
        text = " ".join(flags[name] for name in clear)
        runs = [trained(given, method, "together", text, seed) for seed in range(given.seeds)]
        found["together"] = {"parts": clear, "runs": runs, **gain(runs, base)}  # type: ignore[arg-type]
    return found


def table(method: str, found: dict[str, Any]) -> str:
    """The accuracies and gains in percent, as Markdown."""
    lines = [f"| {method} | best PGD-10 | last PGD-10 | last clean | gain (95 % interval) |", "|---|---|---|---|---|"]
    for name, entry in found.items():
        if "refused" in entry:
            lines.append(f"| {name} | refused: {entry['refused']} | | | |")
            continue
        means = [100 * statistics.mean(run[key] for run in entry["runs"]) for key in ("best", "last", "clean")]
        difference = "" if name == "base" else "{gain:+.1f} ({low:+.1f} to {high:+.1f})".format(
            **{key: 100 * entry[key] for key in ("gain", "low", "high")}
        )  # fmt: skip
        label = f"{name}: {', '.join(entry['parts'])}" if "parts" in entry else name
        lines.append(f"| {label} | {means[0]:.1f} | {means[1]:.1f} | {means[2]:.1f} | {difference} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--methods", default="regmix,liet", help="separated by commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--limit", type=float, default=0.99, help="of the moving average")
    parser.add_argument("--flags", default="", help="further flags of regmix train, for every run")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    asked = given.parts.split(",")
    given.parts = [name for name in PARTS if name in asked]
    if len(given.parts) != len(asked):
        parser.error(f"--parts: choose from {', '.join(PARTS)}")
    given.epochs = given.epochs or recipe(given.recipe).epochs
    given.flags += f" --epochs {given.epochs}"
    found = {}
    for method in given.methods.split(","):
        found[method] = ablation(given, method)
        print(table(method, found[method]), flush=True)
        (given.out / "parts.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
