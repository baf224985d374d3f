"""Odd values of flags, and records that somebody has tampered with: the command works, or says why in one line."""

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.test_fuzz import STRANGE, flipped, retold
from regmix.cli.entry import main

SMALL = "--epochs 1 --train-examples 60 --validation 50 --batch-size 30 --model.width 2"
QUICK = "--attacks clean,fgsm --no-verdict --examples 20"
ODD = (
    "0", "1", "-1", "2", "0.5", "-0", "1e308", "1e-320", "-1e308", "1e400", "nan", "inf", "-inf", "1e7", "1e-13", "x",
    "", "8/255", "8/0", "1/1e-320", "9" * 18, "9" * 30, "9" * 5000, str(2**42 + 1), str(2**63), "1e3", "0x10", "true",
    "None", "1,2", "1_000", "\u0663", "é", "\ud800",
)  # fmt: skip
FLAGS = (
    "seed", "split-seed", "epochs", "batch-size", "lr", "momentum", "weight-decay", "clip-norm", "awp", "awp-warm-up",
    "label-mass", "pad", "train-examples", "validation", "validate-every", "guard.drop", "threat.eps", "model.width",
    "method.alpha", "method.beta", "method.gamma", "method.steps", "method.step-size",
)  # fmt: skip
KINDS = (
    ("method", "trades", ("lam", "steps", "step-size")),
    ("method", "atas", ("c", "beta", "shortest", "longest", "warm-up", "reset")),
    ("method", "fgsm_pgk", ("lam", "mu", "reset")),
    ("method", "n_fgsm", ("noise", "step-size")),
    ("method", "zero_grad", ("q", "step-size")),
    ("method", "free_at", ("replays",)),
    ("method", "gat", ("lam", "late", "late-from")),
    ("schedule", "piecewise", ("milestones", "decay")),
    ("schedule", "one_cycle", ("warm-up",)),
    ("averaging", "ema", ("limit",)),
    ("averaging", "gated_ema", ("threshold",)),
    ("averaging", "swa", ("start",)),
    ("threat", "l2", ("eps",)),
    ("threat", "l1", ("eps",)),
    ("model", "resnet", ("width", "depth")),
    ("model", "wide_resnet", ("widen", "depth")),
)
EVALUATION = (
    "eps", "examples", "sample-seed", "within", "queries", "batch-size", "draws", "severities", "attacks", "curve",
    "corruptions", "checkpoint",
)  # fmt: skip
ENDLESS = {"epochs", "method.steps", "draws", "method.replays"}
"""Settings of which a large value is no mistake, but takes for ever."""
RECORDS = (".json", ".jsonl", ".csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "digits-regmix", *SMALL.split(), "--out", str(path)]) == 0
    assert main(["evaluate", str(path), *QUICK.split()]) == 0
    return path


def check(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Runs a command, which must work or say in one line why it does not."""
    capsys.readouterr()
    code = main(words)
    told = capsys.readouterr().err
    if code:
        assert code in (1, 2), (words, code)
        assert told.startswith("regmix: error: "), (words, told[-2000:])
        assert told.count("\n") == 1, (words, told[-2000:])
    return code


def takes_for_ever(flag: str, value: str) -> bool:
    """Whether the value is no mistake, but more work than there is time for; too many epochs are refused."""
    try:
        number = float(value)
    except ValueError:
        return False
    return flag in ENDLESS and number > 50 and not (flag == "epochs" and number > 10**6)


def an_odd_training(draw: random.Random, place: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, flags = ["train", "digits-regmix", *SMALL.split()], list(FLAGS)
    if draw.random() < 0.5:
        part, kind, own = draw.choice(KINDS)
        if part == "model":
            words = words[: words.index("--model.width")]
        words += [f"--{part}", kind]
        flags = [f"{part}.{name}" for name in own]
    flag, value = draw.choice(flags), draw.choice(ODD)
    if takes_for_ever(flag, value):
        return
    if check([*words, f"--{flag}={value}", "--out", str(place / "new")], capsys):
        # What the gradients make of a number is only seen in training.
        assert not (place / "new").exists() or (place / "new" / "metrics.jsonl").exists(), (flag, value)


def an_odd_evaluation(draw: random.Random, place: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag, value = draw.choice(EVALUATION), draw.choice(ODD)
    if takes_for_ever(flag, value):
        return
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    if check(["evaluate", str(run), *QUICK.split(), f"--{flag}={value}"], capsys):
        assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before, (flag, value)


def a_tampered_record(draw: random.Random, place: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = place / "copy"
    shutil.copytree(run, copy)
    record = draw.choice(sorted(path for path in copy.rglob("*") if path.suffix in RECORDS))
    content = record.read_bytes()
    kind = draw.randrange(6)
    if kind == 0 and record.suffix == ".json":
        content = json.dumps(retold(json.loads(content), draw)).encode()
    elif kind == 1:
        content = b"[" * 100_000 + content
    elif kind == 2:
        content = b"\xff\xfe" + content
    elif kind == 3:
        numbers = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
        where = draw.choice(numbers)
        odd = draw.choice(["1e400", "NaN", "-Infinity", "9" * 5000, "true", '"7"', "null", "-1", "1e308", '"\\ud800"'])
        content = content[:where] + odd.encode() + content[where + 1 :]
    elif kind == 4:
        content = json.dumps(draw.choice(STRANGE)).encode()
    else:
        content = flipped(content, draw)
    record.write_bytes(content)
    commands = (
        ["report", str(copy), "-o", str(place / "report.html")],
        ["evaluate", str(copy), "--attacks", "clean", "--no-verdict", "--examples", "20"],
        ["train", "--resume", str(copy)],
        ["train", "--from", str(copy), "--train-examples", "0", "--out", str(place / "new")],
    )
    config = record.name == "config.json"  # which may ask for more work than there is time for
    check([*draw.choice(commands[::3] if config else commands)], capsys)


TRIALS = (an_odd_training, an_odd_evaluation, a_tampered_record)


def try_out(
    trial: Callable[..., None],
    seeds: range,
    seconds: float,
    tmp_path: Path,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    end = time.monotonic() + seconds
    for seed in seeds:
        if time.monotonic() > end:
            break
        place = tmp_path / str(seed)
        place.mkdir()
        try:
            trial(random.Random(seed), place, run, capsys)
        except BaseException as error:
            raise AssertionError(f"{trial.__name__}, seed {seed}: {type(error).__name__}") from error
        shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.parametrize("trial", TRIALS)
def test_a_few(trial: Callable[..., None], tmp_path: Path, run: Path, capsys) -> None:
    try_out(trial, range(12), 30, tmp_path, run, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("trial", TRIALS)
def test_many(trial: Callable[..., None], tmp_path: Path, run: Path, capsys) -> None:
    try_out(trial, range(12, 10_000), 60, tmp_path, run, capsys)
