"""`regmix evaluate`: survives kills, shares its work, and draws from other runs."""

import json
import linecache
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from contracts.evaluated import folder, journals, record, table
from contracts.torchrun import in_two_processes
from regmix.cli.entry import main
from regmix.config import build_model, from_json
from regmix.corruptions import Computed
from regmix.data import Digits, Folder, draw, load
from regmix.evaluation.chunks import Chunks
from regmix.models import load_weights
from regmix.runs import Journal
from regmix.runs.records import Cost

TINY = "--train-examples 400 --validation 50 --epochs 8 --model.width 8 --method standard"
ATTACKS = "fgsm,apgd-ce,fab-t,pgd-5x2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(f"train digits-regmix {TINY} --averaging none --out {path}".split()) == 0
    return path


def evaluate(path: Path, *more: str, attacks: str = ATTACKS) -> int:
    words = f"evaluate {path} --attacks {attacks} --examples 24 --batch-size 8 --eps 0.1,0.2 --checkpoint last"
    return main([*words.split(), *more])


@pytest.mark.parametrize(
    ("share", "attacks"),
    [
        (0.0, "fgsm,apgd-ce,pgd-5x2"),
        pytest.param(0.4, "fgsm,fab-t,pgd-5x2", marks=pytest.mark.slow),
        pytest.param(0.9, "fgsm,apgd-ce,pgd-5x2", marks=pytest.mark.slow),
    ],
)
def test_a_killed_evaluation_goes_on_where_it_was(run, tmp_path, monkeypatch, share, attacks) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for copy in (whole, broken):
        shutil.copytree(run, copy)
    added = []
    real = Journal.add

    def counts(self, *words):
        real(self, *words)
        if ", " not in words[0] or words[0] == "clean, predicted":  # no further line of a chunk
            added.append(words[:2])

    monkeypatch.setattr(Journal, "add", counts)
    assert evaluate(whole, attacks=attacks) == 0
    all_of_it, added[:] = list(added), []

    def kills(self, *words):
        if len(added) == int(share * len(all_of_it)):
            # what a kill in the middle of a write leaves behind
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write('{"stage": "')
            raise KeyboardInterrupt
        counts(self, *words)

    monkeypatch.setattr(Journal, "add", kills)
    assert evaluate(broken, attacks=attacks) == 130
    assert not list((broken / "evaluations").glob("*/outcomes.csv"))
    monkeypatch.setattr(Journal, "add", counts)
    assert evaluate(broken, attacks=attacks) == 0
    assert added == all_of_it, "no chunk twice"
    assert table(broken) == table(whole)
    assert not journals(broken)


def test_notes_of_other_settings_do_not_count(run, tmp_path) -> None:
    clean, path = (shutil.copytree(run, tmp_path / name) for name in ("clean", "run"))
    assert evaluate(clean, attacks="fgsm") == 0
    place = path / "evaluations" / folder(clean).name
    place.mkdir(parents=True)
    lines = {"stage": "fgsm@0.1/fgsm", "chunk": list(range(8)), "broken": list(range(8))}
    (place / "journal-another-0.jsonl").write_text(json.dumps(lines) + "\nnonsense\n")
    assert evaluate(path, attacks="fgsm") == 0
    assert table(path) == table(clean)


def test_other_attacks_make_use_of_what_an_unfinished_evaluation_has_found(run, tmp_path, monkeypatch) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    real, added = Journal.add, []

    def kills(self, stage, *words):
        if stage.startswith("pgd"):
            raise KeyboardInterrupt
        if ", " not in stage:  # a chunk's further lines
            added.append(stage)
        real(self, stage, *words)

    monkeypatch.setattr(Journal, "add", kills)
    assert evaluate(path, attacks="fgsm,pgd-5x2") == 130
    assert set(added) == {"fgsm@0.1/fgsm"}
    added.clear()
    assert evaluate(path, attacks="fgsm,mi-fgsm-2") == 0
    assert set(added) == {"mi-fgsm-2@0.1/mi-fgsm-2", "fgsm@0.2/fgsm", "mi-fgsm-2@0.2/mi-fgsm-2"}


def test_a_model_whose_code_has_changed_is_attacked_anew(tmp_path, monkeypatch) -> None:
    code = (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(0)\n"
        "        self.head = torch.nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1))OUTPUT\n"
        "make = Net\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    words = (
        "evaluate changing_model:make --data digits --threat.eps 0.1 --attacks fgsm,pgd-2 --examples 30 --no-verdict"
    )

    def run_with(output: str, out: str) -> int:
        (tmp_path / "changing_model.py").write_text(code.replace("OUTPUT", output))
        sys.modules.pop("changing_model", None)
        linecache.clearcache()
        return main([*words.split(), "--out", out])

    real = Journal.add

    def kills(self, stage, *more):
        if stage.startswith("pgd"):
            raise KeyboardInterrupt
        real(self, stage, *more)

    monkeypatch.setattr(Journal, "add", kills)
    assert run_with(".mul(1e6).softmax(1)", "one") == 130  # FGSM has no gradient there
    monkeypatch.setattr(Journal, "add", real)
    assert run_with("", "one") == 0
    assert run_with("", "fresh") == 0
    assert table(tmp_path / "one") == table(tmp_path / "fresh")


def test_what_cannot_run_is_said_before_anything_runs(run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Journal, "add", lambda *_: pytest.fail("an attack has run"))
    assert evaluate(run, attacks="fgsm,cw-l2") == 2
    assert "give an L2 threat" in capsys.readouterr().err
    other = shutil.copytree(run, tmp_path / "other" / run.name)
    assert evaluate(run, attacks=f"fgsm,transfer:{run},transfer:{other}") == 2
    assert "would both be called transfer:tiny" in capsys.readouterr().err


def test_autoattack_tells_its_stages_and_is_no_better_than_any_of_them(run, tmp_path, monkeypatch) -> None:
    from regmix import attacks

    short = attacks.Ensemble(
        (("apgd-ce", attacks.Apgd(steps=10)), ("fab-t", attacks.Fab(steps=10)), ("square", attacks.Square(20)))
    )
    monkeypatch.setitem(attacks.names.FIXED, "autoattack", short)
    path = shutil.copytree(run, tmp_path / "run")
    assert evaluate(path, attacks="apgd-ce,autoattack") == 0
    column = record(path)["columns"]["autoattack@0.1"]
    accuracies = [stage["accuracy"] for stage in column["stages"]]
    assert [stage["attack"] for stage in column["stages"]] == ["apgd-ce", "fab-t", "square"]
    assert accuracies == sorted(accuracies, reverse=True)
    assert column["accuracy"] == accuracies[-1]


def test_transfer_takes_the_examples_of_another_run(run, tmp_path) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    assert evaluate(path, attacks=f"transfer:{run}") == 0
    columns = record(path)["columns"]
    assert set(columns) == {"clean", "transfer:tiny@0.1", "transfer:tiny@0.2"}
    # from itself, it is a white-box attack
    assert columns["transfer:tiny@0.2"]["accuracy"] < columns["clean"]["accuracy"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(run, tmp_path) -> None:
    one, two = (shutil.copytree(run, tmp_path / name) for name in ("one", "two"))
    assert evaluate(one) == 0
    in_two_processes(f"evaluate {two} --attacks {ATTACKS} --examples 24 --batch-size 8 --eps 0.1,0.2 --checkpoint last")
    assert table(two) == table(one)
    assert not journals(two)
    # a file of weights, of which both would make a directory
    out = tmp_path / "out"
    in_two_processes(
        f"evaluate {run / 'last.safetensors'} --data digits --model small_cnn --model.width 8 --threat.eps 0.1"
        f" --attacks {ATTACKS} --examples 24 --batch-size 8 --eps 0.1,0.2 --out {out}"
    )
    assert table(out) == table(one)


def test_weights_from_elsewhere_are_evaluated_like_a_run(run, tmp_path) -> None:
    """The run's own weights, as another code base would have saved them."""
    state = {f"module.{name}": value for name, value in load_file(run / "last.safetensors").items()}
    torch.save({"state_dict": state}, tmp_path / "theirs.pth")
    words = f"evaluate {tmp_path / 'theirs.pth'} --data digits --model small_cnn --model.width 8 --threat.eps 0.15"
    out = tmp_path / "out"
    more = ["--attacks", "pgd-5x2", "--examples", "24", "--batch-size", "8", "--eps", "0.1,0.2"]
    assert main([*words.split(), *more, "--out", str(out)]) == 0
    own = shutil.copytree(run, tmp_path / "own")
    assert evaluate(own, attacks="pgd-5x2") == 0
    assert table(out) == table(own)
    assert main(["report", str(out), "-o", str(tmp_path / "report.html")]) == 0
    assert main([*words.replace("0.15", "0.3").split(), *more, "--out", str(out)]) == 2
    shutil.copy(tmp_path / "theirs.pth", tmp_path / "other.pth")
    assert main([*words.replace("theirs", "other").split(), *more, "--out", str(out)]) == 2, "another source"


def test_outcomes_of_weights_that_a_file_no_longer_holds_are_outdated(run, tmp_path, monkeypatch, capsys) -> None:
    state = load_file(run / "last.safetensors")
    torch.save(state, tmp_path / "theirs.pth")
    words = f"evaluate {tmp_path / 'theirs.pth'} --data digits --model small_cnn --model.width 8 --attacks fgsm"
    words += f" --examples 24 --threat.eps 0.1 --out {tmp_path / 'out'}"
    assert main(words.split()) == 0
    torch.save({name: value + 0.01 * value for name, value in state.items()}, tmp_path / "theirs.pth")
    monkeypatch.setattr(Journal, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(words.split()) == 130
    capsys.readouterr()
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "is outdated: the last weights have changed since" in text
    assert "correct without an attack" not in text


def test_a_function_of_ones_own_is_evaluated_and_trained(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_models.py").write_text(
        "import torch\n"
        "def make(classes):\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = "evaluate own_models:make --data digits --threat.eps 0.1 --attacks fgsm --examples 30"
    assert main(words.split()) == 0
    assert len(table(tmp_path / "evaluations" / "own_models-make")) == 31
    words = "train digits-regmix --epochs 2 --train-examples 100 --validation 50 --model function"
    assert main([*words.split(), "--model.source", "own_models:make", "--out", "run"]) == 0
    assert evaluate(tmp_path / "run", "--trust-code", attacks="fgsm") == 0


def test_saved_adversarial_images_are_inside_the_set_and_still_fool_the_model(run, tmp_path) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    assert evaluate(path, "--save", attacks="pgd-5x2") == 0
    column = record(path)["columns"]["pgd-5x2@0.2"]
    images = folder(path) / "adversarial" / "pgd-5x2@0.2"
    held = np.load(images / "adversarial.npz")
    header, *rows = table(path)
    broken = [
        int(row[0]) for row in rows if row[header.index("clean")] == "1" and row[header.index("pgd-5x2@0.2")] == "0"
    ]
    assert held["index"].tolist() == broken
    assert len(list(images.glob("*.png"))) == len(broken) == column["rounded"]["images"]
    digits = load(Digits(), "test")
    x = digits.images[broken].numpy().astype(int)
    assert np.abs(held["images"].astype(int) - x).max() <= 0.2 * 255
    assert held["label"].tolist() == digits.labels[broken].tolist()
    assert (held["prediction"] != held["label"]).sum() == column["rounded"]["still_adversarial"]
    assert column["rounded"]["still_adversarial"] >= 0.8 * len(broken)
    assert main(["report", str(path), "-o", str(tmp_path / "r.html")]) == 0
    assert "saved images still fool the model after rounding" in (tmp_path / "r.html").read_text()


def test_saved_images_of_evaluations_of_other_images_stay_apart(run, tmp_path) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    assert evaluate(path, "--save", attacks="fgsm") == 0
    first = folder(path) / "adversarial" / "fgsm@0.2"
    before = sorted(int(image.stem) for image in first.glob("*.png"))
    words = f"evaluate {path} --attacks fgsm --examples 8 --batch-size 8 --eps 0.2 --checkpoint last --save"
    assert main(words.split()) == 0
    few = draw(load(Digits(), "test").labels, 8)[1].tolist()
    (second,) = (path / "evaluations").glob("last-8-*/adversarial/fgsm@0.2")
    assert np.load(second / "adversarial.npz")["index"].tolist() == [row for row in before if row in few]
    assert sorted(int(image.stem) for image in first.glob("*.png")) == before


def test_a_row_has_its_place_in_the_test_split_and_every_class_its_share(run, tmp_path) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    assert evaluate(path, attacks="clean") == 0
    labels = load(Digits(), "test").labels
    sample, positions = draw(labels, 24)
    rows = table(path)[1:]
    assert [int(row[0]) for row in rows] == positions.tolist()
    assert [int(row[1]) for row in rows] == labels[positions].tolist()
    assert labels[positions].bincount(minlength=10).min() >= 1
    assert record(path)["subject"]["sample"] == vars(sample)
    assert vars(sample) == {"count": 24, "of": len(labels), "how": "stratified", "seed": 0}
    page = tmp_path / "report.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert f"24 of {len(labels)} test digits, drawn evenly from the classes (seed 0)" in page.read_text()
    for more, expected in ((("--sample", "first"), [*range(24)]), (("--sample-seed", "1"), None)):
        other = shutil.copytree(run, tmp_path / more[0])
        assert evaluate(other, *more, attacks="clean") == 0
        wanted = expected or draw(labels, 24, seed=1)[1].tolist()
        assert [int(row[0]) for row in table(other)[1:]] == wanted


def test_a_model_that_answers_one_class_is_named_in_training_evaluation_and_report(tmp_path, monkeypatch, capsys):
    (tmp_path / "one_class.py").write_text(
        "import torch\n"
        "def make(classes):\n"
        "    head = torch.nn.Linear(64, classes)\n"
        "    torch.nn.init.zeros_(head.weight)\n"
        "    head.bias.data = 5.0 * (torch.arange(classes) == 3)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), head)\n"
    )
    monkeypatch.chdir(tmp_path)
    words = "train digits-regmix --epochs 3 --train-examples 100 --validation 50 --lr 1e-9 --averaging none --out run"
    assert main([*words.split(), "--model", "function", "--model.source", "one_class:make"]) == 0
    told = capsys.readouterr().out
    said = 'answers "3" for 100.0% of the validation images'
    assert [line.split(":")[0] for line in told.splitlines() if said in line] == [
        "WARNING epoch 1", "WARNING the best weights", "WARNING the last weights",
    ]  # fmt: skip
    assert len(json.loads(Path("run/result.json").read_text())["warnings"]) == 2
    assert evaluate(Path("run"), "--no-verdict", "--model.source", "one_class:make", attacks="fgsm") == 0
    assert 'the model answers "3" for 100.0% of the test images' in capsys.readouterr().out
    assert record(Path("run"))["one_answer"] == {"name": "3", "share": 1.0}
    assert main(["report", "run", "-o", "report.html"]) == 0
    page = Path("report.html").read_text()
    assert "of the images are classified as &#34;3&#34;" in page
    assert " correct under FGSM" not in page
    assert "classifies" not in page.split("</header>")[0]


@pytest.mark.slow
def test_a_sample_of_many_unequal_classes_is_fair(shared, tmp_path) -> None:
    with tarfile.open(shared / "gtsrb-small.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = {path.parent for path in tmp_path.rglob("*") if path.is_dir() and path.name in ("test", "Test")}
    test = load(Folder(root=root, size=16), "test")
    drawn = test.labels[draw(test.labels, len(test) // 4)[1]]
    share = test.labels.bincount() / 4
    assert (drawn.bincount(minlength=len(test.classes)) - share).abs().max() < 2
    assert len(test.labels[: len(test) // 4].unique()) < len(drawn.unique())


@pytest.fixture(scope="module")
def colourful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation directory of a small network on 16 images of two colours."""
    root = tmp_path_factory.mktemp("colours")
    for split in ("train", "test"):
        for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = np.random.default_rng(number).integers(-40, 40, (8, 8, 3)) + colour
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")
    words = f"train digits-regmix --method standard --data folder --data.root {root} --model.width 4 --epochs 2"
    words += f" --validation 4 --batch-size 4 --averaging none --out {root / 'run'}"
    assert main(words.split()) == 0
    return root / "run"


def test_corruptions_are_asked_about_and_what_is_known_is_not_asked_again(colourful, monkeypatch, capsys) -> None:
    words = f"evaluate {colourful} --attacks clean --no-verdict --checkpoint last --corruptions fog,contrast "
    words = [*words.split(), "--severities", "5,1"]
    real, made = Computed.images, []

    def counts(self, name, severity, images, labels):
        made.append((name, severity, len(images)))
        if len(made) == 7:
            raise KeyboardInterrupt
        return real(self, name, severity, images, labels)

    monkeypatch.setattr(Computed, "images", counts)
    assert main(words) == 130
    assert made[4:] == [("fog", 5, 16), ("fog", 1, 16), ("contrast", 5, 16)]
    made.clear()
    made.extend([("", 0, 0)] * 10)
    assert main(words) == 0
    assert [kind for kind in made[10:] if kind[2] == 16] == [("contrast", 5, 16), ("contrast", 1, 16)]
    found = record(colourful)["corruptions"][0]
    assert {name: [*row] for name, row in found["accuracy"].items()} == {"fog": ["5", "1"], "contrast": ["5", "1"]}
    text = capsys.readouterr().out
    assert "mean of all" in text

    test = load(Folder(root=colourful.parent), "test")
    experiment = replace(from_json((colourful / "config.json").read_text()), normalise=False)
    model = build_model(experiment, test)
    load_weights(model, colourful / "last.safetensors")
    bad = real(Computed(), "contrast", 5, test.images, test.labels)
    with torch.no_grad():
        right = model.eval()(bad.float() / 255).argmax(1) == test.labels
    assert found["accuracy"]["contrast"]["5"] == pytest.approx(float(right.double().mean()))
    page = colourful / "report.html"
    assert main(["report", str(colourful), "-o", str(page)]) == 0
    assert "Accuracy under corruptions" in page.read_text()


def test_official_files_of_corruptions_are_read(colourful, tmp_path) -> None:
    test = load(Folder(root=colourful.parent), "test")
    np.save(tmp_path / "snow.npy", np.tile(test.images.permute(0, 2, 3, 1).numpy(), (5, 1, 1, 1)))
    np.save(tmp_path / "labels.npy", np.tile(test.labels.numpy().astype(np.uint8), 5))
    words = f"evaluate {colourful} --attacks clean --no-verdict --checkpoint last --corruptions all --corruption-files"
    assert main([*words.split(), str(tmp_path)]) == 0
    last = record(colourful)
    found = {one["source"]: one["accuracy"] for one in last["corruptions"]}
    assert [*found[str(tmp_path)]["snow"].values()] == pytest.approx([last["columns"]["clean"]["accuracy"]] * 5)


def test_grey_images_have_no_corruptions(run, capsys) -> None:
    assert evaluate(run, "--corruptions", "all") == 2
    assert "corruptions are made for colour images" in capsys.readouterr().err


def test_a_column_says_how_many_images_were_not_attacked_and_so_does_it_when_continued(
    run, tmp_path, monkeypatch
) -> None:
    from regmix import attacks

    class Lazy:
        """Breaks nothing, and attacks the first two images of a batch alone."""

        def __call__(self, model, x, y, threat):
            return torch.zeros_like(x)

        def attempt(self, model, x, y, threat):
            return attacks.Attempt(torch.zeros_like(x), torch.arange(len(x)) < 2)

    monkeypatch.setitem(attacks.names.FIXED, "square", Lazy())
    path = shutil.copytree(run, tmp_path / "run")
    for _ in range(2):
        assert evaluate(path, attacks="square,fgsm") == 0
        columns = record(path)["columns"]
        left = columns["clean"]["correct"] - 2 * 3  # in batches of 8
        for name in ("square@0.1", "square@0.2"):
            assert columns[name]["not_attacked"] == left
            assert columns[name]["note"].startswith(f"{left} of 24 images were not attacked")
        assert columns["fgsm@0.1"]["not_attacked"] == 0


def test_every_column_says_what_it_took_in_the_terminal_the_record_and_the_report(run, tmp_path, capsys) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    assert evaluate(path, "--eps", "0.1", attacks="fgsm,pgd-5x2") == 0
    columns, told = record(path)["columns"], capsys.readouterr().out
    page = tmp_path / "report.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert columns["clean"]["cost"]["forward"] == columns["clean"]["cost"]["images"] == 24
    assert columns["fgsm@0.1"]["cost"]["backward"] >= columns["clean"]["correct"]
    for name, column in columns.items():
        cost = Cost(**column["cost"])
        assert cost.seconds > 0
        assert f"{name:<18} {100 * column['accuracy']:>5.1f}%" in told
        assert cost.text() in told
        assert cost.text() in page.read_text()
        assert column["batch_size"] == 8


def test_the_curve_and_the_corruptions_say_what_they_took(colourful, tmp_path, capsys) -> None:
    path = shutil.copytree(colourful, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    page = tmp_path / "report.html"
    for name, severities in (("fmn", "1,2"), ("deepfool", "2,3,4")):
        words = f"evaluate {path} --attacks clean --no-verdict --checkpoint last --curve {name}"
        assert main([*words.split(), "--corruptions", "fog", "--severities", severities]) == 0
    told, found = capsys.readouterr().out, record(path)
    assert main(["report", str(path), "-o", str(page)]) == 0
    (corruptions,), searches = found["corruptions"], found["curve"]["costs"]
    assert {*searches} == {"fmn", "deepfool"}
    for cost in searches.values():
        assert cost["images"] == found["columns"]["clean"]["correct"]
        assert cost["forward"] > cost["images"]
        assert cost["backward"] > 0
        assert Cost(**cost).text() in told
    assert corruptions["cost"]["images"] == corruptions["cost"]["forward"] == 5 * 16
    for cost in (*searches.values(), corruptions["cost"]):
        assert cost["seconds"] > 0
        assert Cost(**cost).text() in page.read_text()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("threat", "eps", 0.3), ("method", "name", "fgsm_at"), ("model", "width", 9), ("threat", "name", "l2")],
)
@pytest.mark.parametrize(
    "words",
    [
        "evaluate RUN --attacks fgsm --examples 20",
        "evaluate OTHER --attacks transfer:RUN --examples 20",
        "predict RUN IMAGE",
        "export RUN --format safetensors",
        "report RUN -o report.html",
        "diagnose RUN",
        "train --from RUN",
    ],
)
def test_weights_are_not_used_with_a_config_that_was_edited(
    words: str, part: str, name: str, value: object, run: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """The radius of the training would be another, and the report would name another method."""
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(run, tmp_path / "copy")
    Image.new("L", (8, 8)).save("image.png")
    config = json.loads((copy / "config.json").read_text())
    before, config[part][name] = config[part][name], value
    (copy / "config.json").write_text(json.dumps(config))
    there = {*tmp_path.rglob("*")}
    places = {"RUN": "copy", "OTHER": str(run), "IMAGE": "image.png", "transfer:RUN": "transfer:copy"}
    capsys.readouterr()
    assert main([places.get(word, word) for word in words.split()]) == 2
    error = capsys.readouterr().err
    assert f"{part}.{name} = {json.dumps(value)}, but" in error
    assert f"was trained with {json.dumps(before)}; put {json.dumps(before)} back" in error
    assert error.count("\n") == 1
    assert {*tmp_path.rglob("*")} == there


@pytest.mark.parametrize("saved", [False, True])
def test_the_same_weights_are_attacked_once(run, tmp_path, monkeypatch, capsys, saved) -> None:
    """Adversarial images are saved for each checkpoint, so with --save each is attacked."""
    path = shutil.copytree(run, tmp_path / "run")
    shutil.copy(path / "last.safetensors", path / "best.safetensors")
    attacked, real = [], Chunks.attack

    def counted(self, batch, rows):
        attacked.append(tuple(rows))
        return real(self, batch, rows)

    monkeypatch.setattr(Chunks, "attack", counted)
    capsys.readouterr()
    words = f"evaluate {path} --examples 24 --batch-size 8 --attacks pgd-2 --curve deepfool"
    assert main([*words.split(), *(["--save"] if saved else [])]) == 0
    assert len(attacked) == (2 if saved else 1) * len({*attacked})
    assert ("the same weights as best" in capsys.readouterr().out) != saved
    assert table(path, "best") == table(path, "last")
    best, last = record(path, "best"), record(path, "last")
    names = ("columns", "curve")
    for column in [*best["columns"].values(), *last["columns"].values()]:
        del column["made"]
        if saved:
            del column["cost"]["seconds"]
    assert saved or [best[name] for name in names] == [last[name] for name in names]
    assert best["columns"] == last["columns"]
    assert not journals(path)
