"""Spoils runs on purpose, diagnoses them, and follows the command that each finding prints.

    python benchmarks/diagnose.py --out DIR [--small] [--only NAME ...]

Every spoiled run is wrong in one way. The table says which findings it got, and what the number that the finding
promised to improve was before and after its command. Sound runs must get no finding. Finished runs are not repeated.
"""

import argparse
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from regmix.cli.entry import main
from regmix.reports.findings import Finding
from regmix.reports.load import LoadedRun, load
from regmix.studies.diagnose import Diagnosis, diagnose

BASE = "digits-regmix --model.width 16 --epochs 20 --validation 300 --device cpu"
SMALL = "digits-regmix --model.width 16 --epochs 12 --validation 200 --device cpu"
ATTACKS = "--attacks clean,pgd-20 --no-verdict --device cpu --trust-code"


@dataclass(frozen=True)
class Spoiled:
    """A run that is wrong in one way."""

    finding: str
    train: str
    measure: Callable[[Path], float]
    """The number that the finding's command should improve; larger is better."""
    evaluate: str = ATTACKS
    beside: str = ""
    """Flags of a second run that is diagnosed beside it."""
    mend: Callable[[Path], None] | None = None
    """What the user does before giving the command."""
    stop: int = 0
    """The epoch after which the training is interrupted; 0: never."""


def regmix(words: str) -> None:
    """Runs a command in this process."""
    if main(shlex.split(words)):
        raise SystemExit(f"regmix {words} failed")


def column(run: LoadedRun, checkpoint: str, attack: str, eps: float) -> float:
    """An accuracy in the run's evaluation."""
    found = [c for c in run.evaluations[checkpoint].columns.values() if c.attack == attack and np.isclose(c.eps, eps)]
    return found[0].accuracy


def robust(eps: float = 0.15, checkpoint: str = "last") -> Callable[[Path], float]:
    """Accuracy under PGD-20 at a radius, evaluated now if it was not yet."""

    def measure(path: Path) -> float:
        try:
            return column(load(path), checkpoint, "pgd-20", eps)
        except (KeyError, IndexError):
            regmix(f"evaluate {shlex.quote(str(path))} {ATTACKS} --eps {eps}")
            return column(load(path), checkpoint, "pgd-20", eps)

    return measure


def clean(path: Path) -> float:
    """Accuracy of the last weights without an attack."""
    robust()(path)
    return column(load(path), "last", "clean", 0.0)


def precision(path: Path) -> float:
    """Minus half the width of the interval of the robust accuracy."""
    shown = load(path).evaluations["last"].columns["pgd-20@0.15"]
    return -(shown.high - shown.low) / 2


def evaluations(path: Path) -> float:
    """How many checkpoints have a valid evaluation under an attack."""
    return len(load(path).evaluations)


def trusted(path: Path) -> float:
    """1 if the evaluation of the last weights shows no masked gradients; else 0."""
    masking = load(path).evaluations["last"].masking
    return float(masking is not None and masking.verdict == "no sign of masking")


def complete(path: Path) -> float:
    """How many epochs are complete."""
    return len(load(path).epochs)


def passed(path: Path) -> float:
    """Minus the number of checks that the evaluation of the last weights failed."""
    return -len(load(path).evaluations["last"].preflight)


MERGED = 3
"""The class that is weak where one class is labelled as the next."""


def digits_folder(out: Path, name: str, wrong: Sequence[int] = (), split: str = "train") -> Path:
    """The digits as PNG files; in one split most images of some classes are labelled as the next class."""
    folder = out / name
    digits = load_digits()
    shutil.rmtree(folder, ignore_errors=True)
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        own = "test" if number % 4 == 0 else "train"
        moved = own == split and label in wrong and (split == "test" or number % 8 != 1)
        place = folder / own / str((label + moved) % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(place / f"{number:04d}.png")
    return folder


def mislabelled(out: Path, name: str, wrong: Sequence[int], split: str = "train") -> tuple[str, Callable[[Path], None]]:
    """The flags of a folder with wrong labels, and what corrects them."""

    def mend(_: Path) -> None:
        digits_folder(out, name)

    if not (out / name).is_dir():
        digits_folder(out, name, wrong, split)
    return f"--data folder --data.root {shlex.quote(str(out / name))} --data.size 8 --data.channels grey", mend


def weak_class(path: Path) -> float:
    """Robust accuracy of the class that was merged."""
    classes = diagnose([path], probe=False)[0].classes
    assert classes is not None
    return next(row.robust.accuracy for row in classes.rows if row.name == str(MERGED))


def surviving(path: Path) -> float:
    """How many classes have an image that survives the attack."""
    classes = diagnose([path], probe=False)[0].classes
    assert classes is not None
    return sum(row.robust.accuracy > 0 for row in classes.rows)


NET = """
import torch

class Rounded(torch.nn.Module):
    def forward(self, x):
        return (x * 255 / 32).round() * 32 / 255

def net(classes):
    layers = torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, classes)
    return torch.nn.Sequential({first}*layers)
"""


def own_model(out: Path, first: str) -> None:
    """A module with a network of the user's own, whose first layer may hide the gradient."""
    (out / "diagnosed_net.py").write_text(NET.format(first=first))
    sys.modules.pop("diagnosed_net", None)


def spoiled(out: Path) -> dict[str, Spoiled]:
    """The runs by name. All findings have one but "not finite", for which no training on the digits was found."""
    one, mend_one = mislabelled(out, "digits-3-is-4", [MERGED])
    many, mend_many = mislabelled(out, "digits-odd-are-even", [1, 3, 5, 7])
    test, mend_test = mislabelled(out, "digits-test-shifted", range(10), "test")
    sys.path.insert(0, str(out))
    if not (out / "diagnosed_net.py").exists():
        own_model(out, "Rounded(), ")
    return {
        "lr / 100": Spoiled("learning rate too low", "--lr 0.001", robust()),
        "lr x 100": Spoiled("learning rate too high", "--lr 10", robust()),
        "1 epoch": Spoiled("too few epochs", "--epochs 1", robust()),
        "width 1": Spoiled("too narrow", "--model.width 1", robust()),
        "eps 0.5": Spoiled("ε too large", "--threat.eps 0.5", robust(0.125)),
        "eps 0.1/255": Spoiled("ε tests nothing", "--threat.eps 0.1/255", robust(8 / 255)),
        "gamma x 100": Spoiled("regularisation too strong", "--method.gamma 2000", robust()),
        "beta x 250": Spoiled("regularisation too strong", "--method.beta 5000", robust()),
        "gamma x 1000, beside standard": Spoiled(
            "clean accuracy far below a plain model's", "--method.gamma 20000", clean, beside="--method standard"
        ),
        "fgsm_at, eps 0.3": Spoiled(
            "catastrophic overfitting", "--method fgsm_at --threat.eps 0.3", robust(0.3), ATTACKS + " --eps 0.3,0.15"
        ),
        "40 test images": Spoiled("too few test images", "--seed 1", precision, ATTACKS + " --examples 40"),
        "class 3 labelled 4": Spoiled("a weak class", one, weak_class, mend=mend_one),
        "classes 1, 3, 5, 7 labelled as the next": Spoiled(
            "weak classes", many, surviving, ATTACKS + " --examples 100", mend=mend_many
        ),
        "test labels shifted by one": Spoiled("failed checks", test, passed, mend=mend_test),
        "input rounded in the model": Spoiled(
            "masked gradients",
            "--model diagnosed_net:net --lr 0.02",
            trusted,
            ATTACKS.replace("--no-verdict ", ""),
            mend=lambda _: own_model(out, ""),
        ),
        "100 images, 200 epochs": Spoiled(
            "robust overfitting",
            "--train-examples 100 --epochs 200 --schedule constant --lr 0.05",
            robust(),
        ),
        "alpha, beta, gamma / 10, beside TRADES": Spoiled(
            "weak at larger ε",
            "--method.alpha 5 --method.beta 2 --method.gamma 2",
            robust(0.25),
            ATTACKS + " --eps 0.15,0.25",
            beside="--method trades",
        ),
        "interrupted": Spoiled("unfinished", "--seed 3", complete, stop=3),
        "constant lr, 8 epochs": Spoiled("cut short", "--epochs 8 --schedule constant --lr 0.02", robust()),
        "no evaluation": Spoiled("not evaluated", "--seed 2", evaluations, ""),
    }


SOUND = {
    **{f"regmix, seed {seed}": f"--seed {seed}" for seed in (0, 1, 2)},
    **{f"pgd_at, seed {seed}": f"--method pgd_at --seed {seed}" for seed in (0, 1)},
    **{f"standard, seed {seed}": f"--method standard --seed {seed}" for seed in (0, 1)},
    **{f"fgsm_pgk, seed {seed}": f"--method fgsm_pgk --seed {seed}" for seed in (0, 1)},
    "trades, seed 0": "--method trades",
}


def folder_name(name: str) -> str:
    """A name without characters that a shell would read."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def made(path: Path, base: str, train: str, evaluate: str, stop: int = 0) -> Path:
    """A trained and evaluated run, made unless it is there."""
    if not (path / "config.json").is_file():
        if "--model " in train:
            base = base.replace("--model.width 16 ", "")
        words = f"train {base} --out {shlex.quote(str(path))} {train}"
        if stop:
            interrupted(words, path, stop)
        else:
            regmix(words)
    if evaluate and not load(path).evaluations:
        regmix(f"evaluate {shlex.quote(str(path))} {evaluate}")
    return path


def interrupted(words: str, path: Path, epochs: int) -> None:
    """A training that gets Ctrl-C once it has printed an epoch."""
    with subprocess.Popen(
        [sys.executable, "-m", "regmix", *shlex.split(words)], stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if re.match(rf"epoch +{epochs}/", line):
                job.send_signal(signal.SIGINT)


def follow(finding: Finding, path: Path, evaluate: str) -> Path:
    """Gives the command of a finding; returns the run that it made or evaluated."""
    words = shlex.split(finding.change)
    if "--out" not in words:
        regmix(shlex.join(words[1:]))
        return path
    new = Path(words[words.index("--out") + 1])
    regmix(shlex.join(words[1:]))
    if evaluate:
        regmix(f"evaluate {shlex.quote(str(new))} {evaluate.partition(' --eps')[0]}")
    return new


def judge_spoiled(name: str, one: Spoiled, out: Path, base: str) -> dict[str, object]:
    """Spoils, diagnoses, follows and measures."""
    path = made(out / folder_name(name), base, one.train, one.evaluate, one.stop)
    beside = [made(out / (folder_name(name) + "-beside"), base, one.beside, one.evaluate)] if one.beside else []
    diagnosis: Diagnosis = diagnose([path, *beside], probe=False)[0]
    found = {finding.name: finding for finding in diagnosis.findings}
    row: dict[str, object] = {"run": name, "expected": one.finding, "found": [*found], "right": one.finding in found}
    if one.finding not in found:
        return row
    before = one.measure(path)
    if one.mend is not None:
        one.mend(path)
    after = one.measure(follow(found[one.finding], path, one.evaluate))
    return row | {
        "change": found[one.finding].change, "promise": found[one.finding].promise, "before": before, "after": after,
    }  # fmt: skip


def judge_sound(name: str, train: str, out: Path, base: str) -> dict[str, object]:
    """Diagnoses a sound run."""
    path = made(out / folder_name("sound " + name), base, train, ATTACKS)
    return {"run": name, "found": [finding.name for finding in diagnose([path], probe=False)[0].findings]}


def listed(row: dict[str, object]) -> str:
    """The findings of a row in words."""
    found = row["found"]
    return ", ".join(map(str, found)) if isinstance(found, list) and found else "none"


def markdown(spoilt: list[dict[str, object]], sound: list[dict[str, object]], out: Path) -> str:
    """The two tables."""
    lines = ["| spoiled run | findings | right | change | before | after |", "|---|---|---|---|---|---|"]
    for row in spoilt:
        change, before, after = str(row.get("change", "")), row.get("before"), row.get("after")
        change = change.replace(str(out), "OUT").partition(" --out")[0]
        numbers = [f"{abs(v):.3f}" if isinstance(v, float | int) else "" for v in (before, after)]
        found = listed(row)
        lines.append(
            f"| {row['run']} | {found} | {'yes' if row['right'] else 'no'} | `{change}` | {' | '.join(numbers)} |"
        )
    right = sum(bool(row["right"]) for row in spoilt)
    better = sum(row["after"] > row["before"] for row in spoilt if "after" in row)  # type: ignore[operator]
    lines += ["", f"{right} of {len(spoilt)} are diagnosed rightly; the number improved in {better}.", ""]
    lines += ["| sound run | findings |", "|---|---|", *(f"| {row['run']} | {listed(row)} |" for row in sound)]
    return "\n".join(lines)


def run(out: Path, base: str, only: list[str]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The rows of both tables; each is kept in OUT/rows.json as soon as it is known."""
    file = out / "rows.json"
    known: dict[str, dict[str, object]] = json.loads(file.read_text()) if file.is_file() else {}

    def kept(name: str, make: Callable[[], dict[str, object]]) -> dict[str, object]:
        if name not in known:
            known[name] = make()
            file.write_text(json.dumps(known, indent=1))
            print(json.dumps(known[name]), flush=True)
        return known[name]

    chosen = {name: one for name, one in spoiled(out).items() if not only or name in only}
    spoilt = [kept(name, lambda n=name, o=one: judge_spoiled(n, o, out, base)) for name, one in chosen.items()]  # type: ignore[misc]
    names = {name: train for name, train in SOUND.items() if not only or name in only}
    sound = [
        kept(f"sound {name}", lambda n=name, t=train: judge_sound(n, t, out, base)) for name, train in names.items()
    ]  # type: ignore[misc]
    return spoilt, sound


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="fewer epochs")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(markdown(*run(given.out, SMALL if given.small else BASE, given.only), given.out))
