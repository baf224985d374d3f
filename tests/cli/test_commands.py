"""The command line: what it does with mistakes, and what its commands leave behind."""

import json
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from regmix import recipes
from regmix.cli.entry import main
from regmix.config import UNIONS
from regmix.runs import Journal, Run

TINY = "--train-examples 60 --validation 50 --epochs 2 --model.width 4"


def call(words: str) -> int:
    return main(words.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run on digits."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert call(f"train digits-regmix {TINY} --out {path}") == 0
    assert call(f"evaluate {path} --attacks fgsm,pgd-2 --eps 0.1,8/255 --examples 40") == 0
    return path


BAD = {
    # command lines
    "trian digits-regmix": "did you mean train?",
    "frobnicate": "see: regmix --help",
    "train": "regmix recipes",
    "train digits-regmx": "did you mean digits-regmix?",
    "train zzz": "regmix recipes",
    "train --seed 1": "needs a recipe",
    "train digits-regmix --from {run}": "give the recipe digits-regmix, or --from {run}; not both",
    "train --seed 1 digits-regmix": "needs a recipe as its first word",
    "train --trust-code digits-regmix": "needs a recipe as its first word",
    "train digits-regmix --method trades --method standard": "--method is given twice",
    "train digits-regmix --method=trades --method standard": "--method is given twice",
    "train --resume {run} --resume {run}": "--resume is given twice",
    "train --from {run} --from={run}": "--from is given twice",
    "train {run}": "{run} is a folder, not a recipe; to train with the settings of a run: --from {run}",
    "predict {run} x.png --checkpoint first": "choose one of 'averaged', 'best', 'last' (see",
    "export {run} --format onnx --checkpoint first": "choose one of 'averaged', 'best', 'last' (see",
    "train digits-regmix --method.alhpa 3": "did you mean --method.alpha?",
    "train digits-regmix --epoch": "--epochs",
    "train digits-regmix extra": "unexpected argument 'extra'",
    "train digits-regmix --epochs x": "--epochs: 'x' is not a whole number",
    "train digits-regmix --epochs": "--epochs needs a value",
    "train digits-regmix --method": "--method needs a value",
    "train digits-regmix --method pgd": "did you mean pgd_at?",
    "train digits-regmix --model vgg": "known: small_cnn",
    "train digits-regmix --threat l3": "unknown threat",
    "train digits-regmix --lr x": "--lr: 'x' is not a number",
    "train digits-regmix --precision 16": "--precision: '16' is unknown; choose one of 'auto', '32'",
    # values
    "train digits-regmix --epochs 0": "at least 1",
    "train digits-regmix --epochs -3": "at least 1",
    "train digits-regmix --batch-size 0": "at least 1",
    "train digits-regmix --validation 0": "at least 1",
    "train digits-regmix --validation 5000": "validation",
    "train digits-regmix --train-examples 0": "train",
    "train digits-regmix --train-examples 99999": "1297",
    "train digits-regmix --lr nan": "lr",
    "train digits-regmix --lr -1": "lr",
    "train digits-regmix --weight-decay inf": "weight_decay",
    "train digits-regmix --momentum 1": "momentum",
    "train digits-regmix --label-mass 0": "label_mass",
    "train digits-regmix --seed -1": "seed",
    "train digits-regmix --pad -1": "pad",
    "train digits-regmix --pad 8": "less than the images' side, 8 pixels",
    "train digits-regmix --threat.eps 8": "8/255",
    "train digits-regmix --threat.eps 8//255": "8/255",
    "train digits-regmix --threat.eps 0": "eps",
    "train digits-regmix --method.steps 0": "steps",
    "train digits-regmix --method.step-size nan": "step_size",
    "train digits-regmix --method.alpha nan": "alpha",
    "train digits-regmix --method.beta -1": "beta",
    "train digits-regmix --method.start stale": "--method.start: 'stale' is unknown",
    "train digits-regmix --schedule.warm-up 2": "warm_up",
    "train digits-regmix --schedule piecewise --schedule.milestones 0": "milestones",
    "train digits-regmix --model.width 0": "width",
    "train digits-regmix --method trades --averaging gated_ema": "--averaging ema",
    "train digits-regmix --method grad_align --shard-weights": "--shard-weights",
    "train digits-regmix --device cuda": "--device cpu",
    # folders
    "train cifar10-regmix --data.root {tmp}/nowhere": "--data.download",
    "train cifar100-regmix --data.root {tmp}/nowhere": "cifar-100-python",
    "train tiny-imagenet-regmix --data.root {tmp}/nowhere": "tiny-imagenet-200",
    "train cifar10-regmix --data folder --data.root {tmp}/nowhere --data.size 32": "nowhere",
    "train cifar10-regmix --data parquet --data.root {tmp}/nowhere": "--data.train-files",
    "train cifar10-regmix --data parquet --data.root {tmp} --data.train-files *.txt": "has no files *.txt",
    "train digits-regmix --out {run}": "exists",
    "train --resume {tmp}/nowhere": "not a run directory",
    "train --from {tmp}/nowhere": "not a run directory",
    "train --resume {run} --epochs 1": "give a larger number",
    "evaluate": "RUN is missing",
    "evaluate {tmp}/nowhere": "not a run directory",
    "evaluate {run} --eps 8/0": "8/255",
    "evaluate {run} --eps eight": "8/255",
    "evaluate {run} --attacks pgd10": "did you mean pgd-10?",
    "evaluate {run} --attacks pgd-0": "unknown attack",
    "evaluate {run} --examples 0": "--examples",
    "evaluate {run} --examples 9999": "500",
    "evaluate {run} --batch-size 0": "batch size",
    "evaluate {run} --checkpoint first": "--checkpoint",
    "evaluate {tmp}/nowhere.pth": "not a file",
    "evaluate {tmp}/nowhere.pth --model vgg": "known: small_cnn",
    "evaluate nowhere_at_all:make": "cannot import nowhere_at_all",
    "evaluate math:nothing": "has no function",
    "evaluate math:sqrt": "math:sqrt failed: TypeError",
    "evaluate math:sqrt --attacks pgd10": "did you mean pgd-10?",
    "evaluate collections:OrderedDict": "torch.nn.Module",
    "evaluate {run} --attacks transfer:{tmp}/nowhere": "not a run directory",
    "compare": "RECIPE is missing",
    "compare digits-regmx": "did you mean digits-regmix?",
    "compare digits-regmix --methods regmx": "did you mean regmix?",
    "compare digits-regmix --methods pgd_at:steps": "FIELD=VALUE",
    "compare digits-regmix --methods pgd_at:stps=2": "did you mean steps?",
    "compare digits-regmix --methods regmix,regmix": "twice",
    "compare digits-regmix --seeds 0": "at least 1",
    "compare digits-regmix --seed 3": "--seeds",
    "compare digits-regmix --attacks pgd10": "did you mean pgd-10?",
    "compare digits-regmix --eps 8": "8/255",
    "compare digits-regmix --examples 501": "500",
    "compare digits-regmix --methods fgsm_rs:averaging=gated_ema": "--averaging ema",
    "sweep": "RECIPE is missing",
    "sweep digits-regmix": "--space is missing",
    "sweep digits-regmx --space lr=1": "did you mean digits-regmix?",
    "sweep digits-regmix --space method.alpha": "cannot be read",
    "sweep digits-regmix --space method.alpha=5,5": "repeated",
    "sweep digits-regmix --space method.alpha=5,-1": "alpha",
    "sweep digits-regmix --space method.alhpa=5": "did you mean --method.alpha?",
    "sweep digits-regmix --space lr=0.1..0.2": "--engine optuna",
    "sweep digits-regmix --space lr=0.2..0.1 --engine optuna": "less than",
    "sweep digits-regmix --space lr=0.1 --workers 0": "at least 1",
    "sweep digits-regmix --space lr=0.1 --engine slurm": "--engine",
    "sweep digits-regmix --space lr=0.1 --examples 501": "500",
    "train digits-regmix --nonfinite ignore": "--nonfinite",
    "report": "at least one run",
    "diagnose": "at least one run",
    "diagnose {tmp}/nowhere": "nowhere",
    "report {tmp}/nowhere": "nowhere",
    "report {run} -o {tmp}/no/folder/r.html": "does not exist",
}


@pytest.mark.parametrize("words", BAD)
def test_a_mistake_is_one_clear_line(
    words: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    code = call(words.format(run=run, tmp=tmp_path))
    told = capsys.readouterr()
    assert code == 2
    assert told.err.startswith("regmix: error: ")
    assert told.err.count("\n") == 1
    assert BAD[words].format(run=run) in told.err
    assert not list(tmp_path.iterdir())


NO_RUN = {
    "nothing": "it does not exist",
    "a file": "it is a file",
    "a folder": "it has no config.json",
    "of others": "its config.json is not one of regmix",
}


@pytest.mark.parametrize("kind", NO_RUN)
@pytest.mark.parametrize(
    "command", ["train --resume", "train --from", "evaluate", "report", "diagnose", "predict", "export"]
)
def test_what_is_no_run_is_called_so(command: str, kind: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / kind
    if kind == "a file":
        place.touch()
    elif kind != "nothing":
        place.mkdir()
    if kind == "of others":
        (place / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "x.png").touch()
    more = {"predict": ["x.png"], "export": ["--format", "onnx"]}.get(command, [])
    assert main([*command.split(), str(place), *more]) == 2
    error = capsys.readouterr().err
    if kind != "a file" or command not in ("evaluate", "predict"):  # which take files of weights
        assert f"is not a run directory, because {NO_RUN[kind]}" in error
    assert error.count("\n") == 1
    assert "--resume" not in error
    (tmp_path / "x.png").unlink()
    assert sorted(tmp_path.rglob("*")) == before
    if kind != "nothing" and command == "report":
        assert main(["train", "digits-regmix", "--out", str(place)]) == 2
        assert capsys.readouterr().err == f"regmix: error: {place} exists; give another --out\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"alpha"', '"alhpa"'), "alhpa"),
        (lambda text: text.replace('"alpha": 50.0', '"alpha": "50"'), "alpha"),
        (lambda text: text.replace('"epochs": 2', '"epochs": 2.5'), "epochs"),
        (lambda text: text.replace('"lr": 0.1', '"lr": NaN'), "lr"),
        (lambda text: text.replace('"regmix"', '"regmox"'), "method"),
        (lambda text: text[:200], "config.json"),
        (lambda text: "", "config.json"),
        (lambda text: "[]", "config.json"),
    ],
)
def test_a_damaged_config_is_named(change, said: str, run: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    before = (broken / "config.json").read_text()
    after = change(before)
    assert after != before
    (broken / "config.json").write_text(after)
    capsys.readouterr()
    assert call(f"train --from {broken} --out {tmp_path / 'new'}") == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_damaged_weights_are_named(run: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    (broken / "best.safetensors").write_bytes((broken / "best.safetensors").read_bytes()[:100])
    capsys.readouterr()
    assert call(f"evaluate {broken}") == 2
    told = capsys.readouterr().err
    assert "best.safetensors" in told
    assert told.count("\n") == 1


def write_images(root: Path, classes: tuple[str, ...]) -> None:
    """Three images of 8 x 8 pixels of each class and split."""
    from PIL import Image

    for split in ("train", "test"):
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def test_images_of_one_class_are_refused(tmp_path: Path, capsys) -> None:
    write_images(tmp_path, ("cat",))
    words = f"train digits-regmix --data folder --data.root {tmp_path} --data.size 8 --validation 1"
    assert call(f"{words} --out {tmp_path / 'out'}") == 2
    assert "the images are all of one class, 'cat'" in capsys.readouterr().err


def test_a_corrupt_image_is_named(tmp_path: Path, capsys) -> None:
    write_images(tmp_path, ("cat", "dog"))
    words = f"train digits-regmix --data folder --data.root {tmp_path} --data.size 8 --validation 2 --epochs 1"
    assert call(f"{words} --model.width 4 --out {tmp_path / 'fine'}") == 0
    broken = tmp_path / "train" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    capsys.readouterr()
    assert call(f"{words} --out {tmp_path / 'out'}") == 2
    assert str(broken) in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert call(f"train digits-regmix {TINY} --out {tmp_path / 'run'}") == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert told.count("\n") == 1
    assert list((tmp_path / "run").iterdir()) == []


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (
            lambda: torch.empty(1 << 58),
            "out of memory: could not allocate 1152921504606846976 B; use a smaller --batch",
        ),
        (lambda: np.empty(1 << 58), "out of memory: could not allocate 2.00 EiB; use a smaller --batch"),
        (
            lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total")),
            "out of memory: could not allocate 2.50 GiB; use a smaller --batch",
        ),
        (lambda: _raise(RuntimeError("CUDA error: out of memory")), "out of memory; use a smaller --batch"),
        (lambda: _raise(MemoryError()), "out of memory; use a smaller --batch"),
        (
            lambda: _raise(ImportError("x.so: failed to map segment")),
            "out of memory; use a smaller --batch",
        ),
        (lambda: _raise(zlib.error("Error -4 while decompressing data")), "out of memory; use a smaller --batch"),
    ],
    ids=["torch on a CPU", "numpy", "torch on a GPU", "CUDA", "Python", "linker", "zlib"],
)
def test_a_lack_of_memory_is_one_line(fail, said: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("regmix.cli.commands.report", lambda words: fail())
    assert call("report runs/a") == 1
    assert capsys.readouterr().err == f"regmix: error: {said}-size\n"


def test_help_names_units_and_choices(capsys) -> None:
    for words in ("train --help", "train digits-regmix -h", "evaluate --help", "compare --help", "report --help"):
        assert call(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "in units of the pixel range [0, 1]" in shown
    assert f"One of: {', '.join(UNIONS['method'])}." in shown
    assert call("--help") == 0
    assert "evaluate RUN" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_evaluation_says_what_is_kept_and_continues(number, run: Path, monkeypatch, capsys) -> None:
    words, added = f"evaluate {run} --attacks pgd-3 --eps 0.1,0.{number:02} --examples 40 --batch-size 10", []

    def add(journal: Journal, stage: str, *more: object) -> None:
        added.append(stage)
        if len(added) == 12:
            signal.raise_signal(number)
        original(journal, stage, *more)

    original = Journal.add
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add)
        assert call(words) == 128 + number
    (told,) = capsys.readouterr().err.splitlines()
    assert told == (
        f"regmix: {number.name}: the finished batches are kept in {run}; continue with the same command: regmix {words}"
    )
    assert call(words) == 0


def test_an_interruption_before_anything_is_begun_says_how_to_go_on(run: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Run, "open", lambda *words, **more: signal.raise_signal(signal.SIGINT))
    for command in ("evaluate", "report"):
        assert call(f"{command} {run}") == 130
        assert capsys.readouterr().err == "regmix: SIGINT: give the same command again\n"


def test_the_help_of_a_run_shows_its_settings(run: Path, capsys) -> None:
    assert call(f"train --from {run} --threat l2 --help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Passes over the training images. (default: 2)" in shown
    assert "Channels of the first convolution. (default: 4)" in shown
    assert "(default: 128/255)" in shown


def test_recipes_are_listed_with_a_line_each(capsys) -> None:
    assert call("recipes") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(recipes.RECIPES)
    assert call("recipes --json") == 0
    assert json.loads(capsys.readouterr().out).keys() == recipes.RECIPES.keys()


def test_json_is_alone_on_standard_output(run: Path, tmp_path: Path, capsys) -> None:
    for words in (f"train digits-regmix {TINY} --json --out {tmp_path / 'r'}", f"evaluate {run} --examples 20 --json"):
        capsys.readouterr()
        assert call(words) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "finished"


def test_another_method_under_the_same_recipe(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call(f"train digits-regmix --method pgd_at --method.steps 2 {TINY} --out={out}") == 0
    config = json.loads((out / "config.json").read_text())
    assert config["method"]["name"] == "pgd_at"
    assert config["method"]["steps"] == 2
    assert config["threat"] == {"name": "linf", "eps": recipes.recipe("digits-regmix").threat.eps}


def test_the_report_is_written(run: Path, tmp_path: Path, capsys) -> None:
    page = tmp_path / "report.html"
    assert call(f"report {run} -o {page}") == 0
    assert "RegMix" in page.read_text()


def test_a_reader_that_goes_away_is_no_mistake() -> None:
    lines = f"import sys; from regmix.cli import main; sys.exit(main({['recipes']!r}))"
    process = subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert told == b""
