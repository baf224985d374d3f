"""`regmix compare`: trains, evaluates and tabulates, and never repeats what is done."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from contracts.evaluated import evaluated, folder, record
from regmix.attacks import Attack, parse_attacks
from regmix.cli.entry import main
from regmix.cli.train import parse_training
from regmix.config import Ema, Experiment, OneCycle
from regmix.config.guard import Guard
from regmix.data import Cifar10, ColourJitter, CropShift, Cutout, Folder, Mixup
from regmix.evaluation import Evaluator, Survivors, subject
from regmix.methods import PgdAt
from regmix.models import ResNet
from regmix.runs import Run
from regmix.studies.compare import MEASURE, check_comparison, check_ranking, method_words, overridden
from regmix.studies.trainings import Planned, _images
from regmix.threats import L2, Linf, Threat
from regmix.training import validation
from regmix.types import UserError

TINY = "--train-examples 60 --validation 50 --epochs 2 --model.width 4"
EVALUATION = "--examples 40 --attacks clean,pgd-2 --seeds 2 --no-verdict"


def compare(out: Path, methods: str, *more: str) -> int:
    return main(
        ["compare", "digits-regmix", "--methods", methods, *TINY.split(), *EVALUATION.split(), "--out", str(out), *more]
    )


def test_method_texts_become_flags():
    assert method_words("regmix") == ["--method", "regmix"]
    assert method_words(" pgd_at:steps=3:step_size=0.5") == [
        "--method", "pgd_at", "--method.steps", "3", "--method.step-size", "0.5",
    ]  # fmt: skip
    assert method_words("trades:mutual.alpha=50:averaging=swa:clip_norm=1") == [
        "--method", "trades", "--method.mutual.alpha", "50", "--averaging", "swa", "--clip-norm", "1",
    ]  # fmt: skip
    with pytest.raises(UserError, match="--methods pgd_at:steps: 'steps' is not a setting; write pgd_at:FIELD=VALUE"):
        method_words("pgd_at:steps")
    with pytest.raises(UserError, match="steps is set twice"):
        method_words("pgd_at:steps=3:steps=4")


@pytest.mark.parametrize(
    ("shared", "own", "together"),
    [
        ("--epochs 20 --lr 0.1", "--epochs 10", "--lr 0.1 --epochs 10"),
        ("", "--epochs 10", "--epochs 10"),
        ("--epochs 20", "", "--epochs 20"),
        ("--label-mass=0.6", "--label-mass 1", "--label-mass 1"),
        ("--label_mass 0.6", "--label-mass 1", "--label-mass 1"),
        ("--freeze conv1 conv2 --lr 0.1", "--freeze conv1", "--lr 0.1 --freeze conv1"),
        ("--averaging ema --averaging.limit 0.9 --lr 0.1", "--averaging none", "--lr 0.1 --averaging none"),
        ("--averaging.limit 0.9", "--averaging ema", "--averaging.limit 0.9 --averaging ema"),
        ("--averaging ema --averaging.limit 0.9", "--averaging.limit 0.5", "--averaging ema --averaging.limit 0.5"),
        ("--method.alpha 3", "--method regmix", "--method.alpha 3 --method regmix"),
        ("--averaging=ema --averaging.limit 0.9", "--averaging ema", "--averaging.limit 0.9 --averaging ema"),
        ("--schedule piecewise --schedule.milestones 3 6", "--schedule cosine", "--schedule cosine"),
        ("--flip --lr 0.1", "--lr 0.2", "--flip --lr 0.2"),
    ],
)
def test_a_methods_own_setting_replaces_that_of_all(shared: str, own: str, together: str) -> None:
    assert overridden(shared.split(), own.split()) == together.split()


@pytest.mark.slow
def test_what_is_set_for_one_method_holds_for_it_alone(tmp_path: Path) -> None:
    """A shared flag won in silence, and the folder bore the name of the setting that was lost."""
    methods = "standard,standard:epochs=1:averaging=none:label_mass=1"
    shared = ("--epochs", "2", "--averaging", "ema", "--averaging.limit", "0.9", "--label-mass", "0.6")
    more = ("--seeds", "1", "--attacks", "clean", "--workers", "2")
    assert compare(tmp_path, methods, *shared, *more) == 0
    every, own = (
        json.loads((tmp_path / name / "config.json").read_text())
        for name in ("standard-seed0", "standard-epochs=1-averaging=none-label_mass=1-seed0")
    )
    assert (every["epochs"], every["averaging"]["limit"], every["label_mass"]) == (2, 0.9, 0.6)
    assert (own["epochs"], own["averaging"]["name"], own["label_mass"]) == (1, "none", 1.0)
    for name in ("standard-seed0", "standard-epochs=1-averaging=none-label_mass=1-seed0"):
        assert "epoch" in (tmp_path / f"{name}.log").read_text()  # two at a time, each with a log of its own


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a comparison whose run is trained, and beside it two runs to transfer from, both called source."""
    root = tmp_path_factory.mktemp("compared")
    words = f"train digits-regmix {TINY} --method standard --averaging none --epochs 1"
    for seed, path in enumerate(("out/standard-seed0", "a/source", "b/source")):
        assert main([*words.split(), "--seed", str(seed), "--out", str(root / path)]) == 0
    return root


@pytest.fixture
def again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Compares the trained run under some attacks; returns the names of the attacks that had to run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []
    real = Evaluator.survivors

    def noted(self: Evaluator, attack: Attack, threat: Threat, alive: Tensor, name: str, **more: Any) -> Survivors:
        ran.append(name)
        return real(self, attack, threat, alive, name, **more)

    monkeypatch.setattr(Evaluator, "survivors", noted)

    def run(attacks: str, *more: str) -> list[str]:
        ran.clear()
        words = [*["--seeds", "1", "--averaging", "none", "--epochs", "1"], "--attacks", attacks, *more]
        assert compare(Path("out"), "standard", *words) == 0
        return [*ran]

    return run


@pytest.mark.parametrize(
    ("attacks", "eps"),
    [
        ("clean", "0.1"),
        ("fgsm,pgd-2x2,fgsm", "0.1,8/255"),
        ("pgd-2", "8/255,0.1,0.1"),
        ("transfer:a/source", "0.1"),
        pytest.param("autoattack-screened,clean", "0.02", marks=pytest.mark.slow),
    ],
)
def test_what_a_comparison_has_evaluated_it_finds_again(again, attacks: str, eps: str) -> None:
    first = again(attacks, "--eps", eps)
    columns = record(Path("out/standard-seed0"))["columns"]
    assert len(columns) == 1 + len({*parse_attacks(attacks)}) * len({*eps.split(",")})
    assert bool(first) == (attacks != "clean")
    assert again(attacks, "--eps", eps) == []


@pytest.mark.slow
def test_only_attacks_that_are_missing_run_and_a_verdict_rests_on_all(again) -> None:
    def verdict() -> dict[str, Any]:
        return cast(dict[str, Any], record(Path("out/standard-seed0"))["masking"])

    def probed(attacks: str, eps: str) -> list[str]:
        ran = again(attacks, "--eps", eps, "--verdict", "--examples", "60")
        return sorted({name.partition("/")[0] for name in ran})

    assert probed("pgd-2", "0.1,0.15")
    first = verdict()
    assert probed("pgd-2", "0.1,0.15") == []
    assert probed("pgd-2,fgsm", "0.1") == ["fgsm@0.1"]
    assert probed("pgd-2,fgsm", "0.1,0.15,0.2") == ["fgsm@0.15", "fgsm@0.2", "pgd-2@0.2"]
    columns = record(Path("out/standard-seed0"))["columns"]
    assert {*columns} == {"clean"} | {f"{attack}@{eps}" for attack in ("pgd-2", "fgsm") for eps in (0.1, 0.15, 0.2)}
    # The test spoils the record to see that new attacks bring a new verdict, and nothing else does.
    path = next(Path("out/standard-seed0/evaluations").glob("*/evaluation.json"))
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "masking": {**first, "signs": ["spoiled"]}}))
    assert probed("pgd-2,fgsm", "0.1") == []
    assert verdict()["signs"] == ["spoiled"]
    assert probed("pgd-2,fgsm,pgd-3", "0.1") == ["pgd-3@0.1"]
    assert verdict()["signs"] != ["spoiled"]


def test_a_comparison_tells_of_the_images_that_were_asked_for(again, capfd) -> None:
    """Not of more images that were evaluated before."""
    again("fgsm,pgd-2")
    capfd.readouterr()
    again("fgsm", "--examples", "20", "--sample-seed", "7")
    assert "Of 20 of 500 test digits, drawn evenly from the classes (seed 7)." in capfd.readouterr().out
    comparison = json.loads(Path("out/comparison.json").read_text())
    assert comparison["images"] == ["20 of 500 test digits, drawn evenly from the classes (seed 7)"]
    assert "20 of 500 test digits, drawn evenly from the classes (seed 7)" in Path("out/report.html").read_text()


def test_a_comparison_reads_the_test_set_once(again, monkeypatch) -> None:
    splits: list[str] = []
    real = subject.load
    monkeypatch.setattr(subject, "load", lambda data, split: (splits.append(split), real(data, split))[1])
    assert again("pgd-2")
    assert splits == ["test"]


@pytest.mark.slow
def test_a_transfer_attack_is_known_by_the_weights_that_it_takes_its_examples_from(
    again, tmp_path: Path, capfd
) -> None:
    assert again("transfer:a/source")
    assert again(f"transfer:{tmp_path / 'a' / 'source'}/") == [], "the same run by another path"
    shutil.copytree("a", "copy")
    assert again("transfer:copy/source") == [], "the same weights"
    before = record(Path("out/standard-seed0"))
    words = "--seeds 1 --averaging none --epochs 1 --attacks transfer:b/source"
    assert compare(Path("out"), "standard", *words.split()) == 2, "another run of the same name"
    assert "transfer:source@0.15 is there already, with examples from" in capfd.readouterr().err
    assert record(Path("out/standard-seed0")) == before
    shutil.move("b/source", "b/other")
    assert again("transfer:b/other")
    columns = record(Path("out/standard-seed0"))["columns"]
    paths = [columns[f"transfer:{name}@0.15"]["source"]["path"] for name in ("source", "other")]
    assert paths == [str((tmp_path / name / "best.safetensors").resolve()) for name in ("a/source", "b/other")]
    shutil.copy("b/other/best.safetensors", "a/source/best.safetensors")
    assert again("transfer:a/source"), "the same run, trained further"


@pytest.mark.parametrize("attack", ["PGD-50", "pgd-050", "transfer:nowhere", "transfer:"])
def test_an_attack_that_is_not_known_is_refused_before_anything_is_trained(tmp_path, capfd, attack: str) -> None:
    assert compare(tmp_path / "out", "standard", "--attacks", attack) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("methods", "says"),
    [("regmix,regmix:alpha=50", "have the same settings"), ("", "names no method"), ("regmix,regmix", "listed twice")],
)
def test_methods_that_are_none_or_the_same_are_refused(tmp_path, capfd, methods: str, says: str) -> None:
    assert compare(tmp_path / "out", methods) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("methods", "more", "says"),
    [
        ("standard,pgd_at:alpha=2", (), "neither pgd_at nor the training has a setting alpha; it has: steps, "),
        ("standard:steps=2", (), "neither standard nor the training has a setting steps; it has: none"),
        ("pgd_at:averagin.decay=0.9", (), "has a setting averagin.decay; did you mean averaging?"),
        ("regmix:seed=3,pgd_at", (), "all methods have the same seeds and device; set --seeds"),
        ("regmix,standard", ("--epochs", "0"), "error: epochs is 0"),
        ("regmix,standard", ("--method.alpha", "3"), "for the method standard: unknown flag '--method.alpha'"),
        ("regmix,standard", ("--method.alpha", "3"), "after its name: --methods NAME:FIELD=VALUE"),
        ("regmix,standard", ("--method", "trades"), "--method: compare has several; name them with --methods"),
        ("regmix", ("--method=trades",), "--method: compare has several; name them with --methods"),
        ("standard,pgd_at:steps=0", (), "for the method pgd_at:steps=0: method steps is 0"),
    ],
)
def test_a_setting_that_a_method_does_not_have_is_refused_with_its_name(
    tmp_path, capfd, methods: str, more: tuple[str, ...], says: str
) -> None:
    assert compare(tmp_path / "out", methods, *more) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_radii_that_are_written_alike_are_refused(tmp_path, capfd) -> None:
    assert compare(tmp_path / "out", "standard", "--attacks", "fgsm", "--eps", "0.1,0.10000001") == 2
    assert "would both be called fgsm@0.1" in capfd.readouterr().err


@pytest.mark.slow
def test_compare_from_training_to_report_and_again(tmp_path, capfd):
    out = tmp_path / "out"
    assert compare(out, "regmix,pgd_at:steps=2", "--json") == 0
    result = json.loads(capfd.readouterr().out)
    assert result == json.loads((out / "comparison.json").read_text())
    assert [one["label"] for one in result["methods"]] == ["RegMix", "PGD-AT"]
    for arm in result["methods"]:
        assert [json.loads((Path(run) / "config.json").read_text())["seed"] for run in arm["runs"]] == [0, 1]
        clean = [record(Path(run))["columns"]["clean"]["accuracy"] for run in arm["runs"]]
        assert arm["accuracy"]["last"]["clean"]["values"] == clean
        assert arm["accuracy"]["last"]["clean"]["mean"] == pytest.approx(sum(clean) / 2)
        assert all(memory > 2**26 for memory in arm["peak_memory"])
    assert len(result["differences"]["best"]["clean"]) == 1
    assert "Results over seeds" in (out / "report.html").read_text()

    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert compare(out, "regmix,pgd_at:steps=2") == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*")} == before
    assert "RegMix - PGD-AT" in capfd.readouterr().out

    # another attack: evaluated again, not trained again
    assert compare(out, "regmix", "--attacks", "clean,fgsm") == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("regmix-seed0/*")}
    assert after[out / "regmix-seed0" / "last.safetensors"] == before[out / "regmix-seed0" / "last.safetensors"]
    assert "fgsm@0.15" in record(out / "regmix-seed0")["columns"]

    # probed for masking: once
    assert compare(out, "regmix", "--attacks", "clean,fgsm", "--seeds", "1", "--verdict") == 0
    assert all(record(out / "regmix-seed0", name)["masking"] for name in evaluated(out / "regmix-seed0"))
    probed = (folder(out / "regmix-seed0") / "evaluation.json").stat().st_mtime_ns
    for verdict in ("--verdict", "--no-verdict"):
        assert compare(out, "regmix", "--attacks", "clean,fgsm", "--seeds", "1", verdict) == 0
    assert (folder(out / "regmix-seed0") / "evaluation.json").stat().st_mtime_ns == probed

    capfd.readouterr()
    assert compare(out, "regmix", "--epochs", "3") == 2
    assert "was trained with epochs = 2, not 3" in capfd.readouterr().err


def test_where_the_images_lie_is_no_setting_of_a_complete_run(tmp_path: Path) -> None:
    """Evidence from another machine can be judged here."""
    for split, name, number in product(("train", "test"), ("cat", "dog"), range(6)):
        folder = tmp_path / "one" / split / name
        folder.mkdir(parents=True, exist_ok=True)
        grey = 20 * number + (100 if name == "cat" else 0)
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(folder / f"{number}.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    words = "--data folder --data.size 8 --validation 4 --epochs 1 --method standard --batch-size 4 --model.width 2"

    def planned(root: Path) -> Planned:
        experiment = parse_training(["digits-regmix", *words.split(), "--data.root", str(root)])[1].experiment
        return Planned(tmp_path / "run", [], experiment)

    out = ["--out", str(tmp_path / "run")]
    assert main(["train", "digits-regmix", *words.split(), "--data.root", str(tmp_path / "one"), *out]) == 0
    planned(tmp_path / "two").check()
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "two" / "train" / "cat" / "0.png")
    shutil.copytree(tmp_path / "two", tmp_path / "three")
    with pytest.raises(UserError, match="was trained on other images: images have been replaced"):
        planned(tmp_path / "three").check()
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    planned(tmp_path / "one").check()
    shutil.copy(tmp_path / "three" / "train" / "cat" / "0.png", tmp_path / "one" / "train" / "cat" / "more.png")
    _images.cache_clear()
    with pytest.raises(UserError, match="was trained on other images: cat has 5 images instead of 4"):
        planned(tmp_path / "one").check()  # another seed would be trained on those, and averaged with it
    shutil.rmtree(tmp_path / "one")
    _images.cache_clear()
    planned(tmp_path / "one").check()  # its records can be judged without them
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match=r"was trained with data\.root"):
        planned(tmp_path / "four").check()  # it could not be continued


def test_of_the_precision_counts_what_a_run_was_trained_in(tmp_path: Path) -> None:
    """Seeds of one experiment may come from several machines, where auto means different things."""
    settings = "--train-examples 8 --validation 2 --epochs 1 --method standard --model.width 2"
    words = ["digits-regmix", *settings.split()]

    def planned(precision: str) -> Planned:
        experiment = parse_training([*words, "--precision", precision])[1].experiment
        return Planned(tmp_path / "run", [], experiment)

    assert main(["train", *words, "--precision", "bf16", "--out", str(tmp_path / "run")]) == 0
    planned("bf16").check()
    planned("auto").check()
    with pytest.raises(UserError, match="was trained with precision = bf16, not 32"):
        planned("32").check()
    (tmp_path / "run" / "environment.json").unlink()  # of an old version
    with pytest.raises(UserError, match="was trained with precision = bf16, not auto"):
        planned("auto").check()


@pytest.mark.slow
def test_an_interrupted_training_is_continued(tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert compare(out, "fgsm_rs", "--seeds", "1") == 0
    run = out / "fgsm_rs-seed0"
    whole = (run / "last.safetensors").read_bytes()

    again = tmp_path / "again"
    real, calls = validation.validate, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(validation, "validate", stops)
    words = f"train digits-regmix --method fgsm_rs {TINY} --out {again / 'fgsm_rs-seed0'}"
    assert main(words.split()) == 130
    assert Run.open(again / "fgsm_rs-seed0").result().status != "finished"
    assert compare(again, "fgsm_rs", "--seeds", "1") == 0
    assert (again / "fgsm_rs-seed0" / "last.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_training_that_fails_ends_the_comparison_with_its_line(tmp_path, capfd):
    assert compare(tmp_path / "out", "regmix", "--validation", "5000") == 2
    told = capfd.readouterr().err
    assert "validation" in told
    assert "regmix-seed0: the training ended with exit code 2" in told


CHANGES = {
    "threat": [Linf(0.1), L2(0.5)],
    "data": [Cifar10(), Folder(size=24), Folder(size=32)],
    "validation": [500, None],
    "split_seed": [1],
    "validate_every": [5],
    "best_of": ["either"],
    "precision": ["32", "bf16"],
    # these change the training alone
    "model": [ResNet()],
    "method": [PgdAt()],
    "schedule": [OneCycle()],
    "averaging": [Ema()],
    "epochs": [3],
    "batch_size": [64],
    "accumulate": [2],
    "lr": [0.3],
    "momentum": [0.5],
    "weight_decay": [0.0],
    "optimizer": ["adamw"],
    "decayed": ["weights"],
    "layer_decay": [0.9],
    "ramp": [0.2],
    "init": ["other.pt"],
    "crop": [CropShift()],
    "colour": [ColourJitter()],
    "erase": [Cutout()],
    "mix": [Mixup()],
    "balance": ["loss"],
    "init_weights": ["raw"],
    "freeze": [("conv1",)],
    "cuda_graph": ["off"],
    "clip_norm": [1.0],
    "awp": [0.005],
    "awp_warm_up": [3],
    "label_mass": [0.9],
    "label_rest": ["random"],
    "ramp_of": ["terms"],
    "pad": [2],
    "flip": [True],
    "normalise": [True],
    "train_examples": [300],
    "guard": [Guard(action="stop")],
    "nonfinite": ["stop"],
    "sync_batchnorm": [True],
    "shard_weights": [True],
    "seed": [1],
    "device": ["cpu"],
}


@pytest.mark.parametrize("name", Experiment.__dataclass_fields__)
def test_points_are_ranked_only_if_they_are_measured_alike(name: str) -> None:
    base = Experiment(init="weights.pt")
    for value in CHANGES[name]:
        points = [base, base, replace(base, **{name: value})]
        if name not in MEASURE:
            check_ranking(points)
            continue
        with pytest.raises(UserError, match=rf"--space: {name}.* changes how the points are measured"):
            check_ranking(points)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("threat.eps=0.15,0.02", "threat.eps"),
        ("threat.eps=0.02..0.15", "threat.eps"),
        ("threat=linf,l2", "threat"),
        ("method.alpha=10,20 validation=60,200", "validation"),
        ("split-seed=0,1", "split_seed"),
        ("split_seed=0,1", "split_seed"),
        ("validate-every=1,2", "validate_every"),
        ("best-of=weights,either", "best_of"),
        ("precision=32,bf16", "precision"),
        ("seed=1,2", "--seeds"),
        ("device=cpu,cuda", "give --device"),
        ("out=a,b", "folder of --out"),
    ],
)
def test_a_sweep_over_its_own_measure_is_refused_before_anything_is_written(tmp_path, capfd, space, said) -> None:
    engine = ["--engine", "optuna"] if ".." in space else []
    assert (
        main(["sweep", "digits-regmix", "--space", space, *engine, *TINY.split(), "--out", str(tmp_path / "out")]) == 2
    )
    told = capfd.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_methods_are_compared_on_the_same_images_and_under_the_same_threat(tmp_path, capfd) -> None:
    base = Experiment(threat=Linf(0.1))
    wider, other_norm = replace(base, threat=Linf(0.2)), replace(base, threat=L2(0.1))
    check_comparison([base, wider], [0.1])
    check_comparison([base, replace(base, validation=7, precision="32", best_of="either")], [])
    with pytest.raises(UserError, match=r"threat\.eps differs.*--eps"):
        check_comparison([base, wider], [])
    with pytest.raises(UserError, match="differ in the norm"):
        check_comparison([base, other_norm], [0.1])
    with pytest.raises(UserError, match="data may change the test images"):
        check_comparison([base, replace(base, data=Cifar10())], [0.1])
    assert compare(tmp_path / "out", "regmix,pgd_at:threat.eps=0.02") == 2
    assert "--eps" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
