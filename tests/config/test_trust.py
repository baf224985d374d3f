"""Code that a run asks for runs only where the user has named it, or has said that he trusts the run."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import regmix
from regmix.cli.entry import main
from regmix.config import Experiment, from_json
from regmix.models import Function
from regmix.training.start import resume
from regmix.types import Trust, UserError

CODE = "from pathlib import Path\nimport torch\nPath({mark!r}).touch()\n" + (
    "def make(classes=10): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
)
SMALL = "--epochs 1 --train-examples 60 --validation 50"
QUICK = "--attacks clean --no-verdict --examples 20"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run of somebody else in it, which asks for the code theirs_N:make beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"theirs_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE.format(mark=str(tmp_path / "RAN")))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"model": {"name": "function", "source": f"{name}:make"}}))
    (run / "result.json").write_text(json.dumps({"classes": [*"0123456789"], "shape": [1, 8, 8]}))
    save_file({"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}, run / "best.safetensors")
    return tmp_path


def source(folder: Path) -> str:
    return str(json.loads((folder / "run" / "config.json").read_text())["model"]["source"])


def ran(folder: Path) -> bool:
    return (folder / "RAN").exists()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        f"evaluate run {QUICK}",
        f"train --from run {SMALL} --out new",
        "train --resume run",
        f"evaluate run {QUICK} --model.source other:make",
        f"compare digits-regmix --methods standard --seeds 1 {SMALL} --attacks transfer:run --out new",
        f"sweep digits-regmix --space lr=0.1 {SMALL} --attacks transfer:run --out new",
    ],
)
def test_nothing_runs_and_nothing_is_written_without_permission(words: str, folder: Path, capsys) -> None:
    before = files(folder)
    assert main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    run = folder / "run" if "transfer:" in words else "run"
    assert line == (
        f"regmix: error: {run} asks for the code {source(folder)}, which would be imported from {folder}; allow it "
        f"with --model.source {source(folder)} or --trust-code "
        f"(in Python: source='{source(folder)}' or trust_code=True)"
    )
    assert not ran(folder)
    assert files(folder) == before


def test_nor_does_the_library_run_it(folder: Path) -> None:
    for attempt in (
        lambda: regmix.load_model("run"),
        lambda: regmix.load_model("run", source="other:make"),
        lambda: resume(Path("run"), None),  # type: ignore[arg-type]
        lambda: from_json((folder / "run" / "config.json").read_text()),
    ):
        with pytest.raises(UserError, match="asks for the code"):
            attempt()
    assert not ran(folder)


@pytest.mark.parametrize("words", [f"evaluate run {QUICK}", f"train --from run {SMALL} --out new"])
@pytest.mark.parametrize("named", [True, False])
def test_it_runs_where_it_is_allowed(words: str, named: bool, folder: Path, capsys) -> None:
    allowed = ["--model.source", source(folder)] if named else ["--trust-code"]
    assert main([*words.split(), *allowed]) == 0, capsys.readouterr().err
    assert ran(folder)


def test_the_library_runs_what_its_caller_names(folder: Path) -> None:
    assert regmix.load_model("run", source=source(folder)).shape == (1, 8, 8)
    assert ran(folder)
    assert regmix.load_model("run", trust_code=True).classes[0] == "0"


def test_another_model_needs_no_permission(folder: Path) -> None:
    words = f"train --from run {SMALL} --model small_cnn --model.width 4 --out new"
    assert main(words.split()) == 0
    assert not ran(folder)


def test_a_report_runs_nothing(folder: Path) -> None:
    assert main(["report", "run", "-o", "r.html"]) == 0
    assert not ran(folder)


def test_a_model_of_our_own_needs_no_name(folder: Path) -> None:
    assert main(f"train digits-regmix {SMALL} --model.width 4 --out mine".split()) == 0
    with pytest.raises(UserError, match="leave out source"):
        regmix.load_model("mine", source="other:make")


def test_the_next_command_is_told_with_the_permission_that_it_needs(folder: Path, capsys) -> None:
    words = f"train digits-regmix {SMALL} --model function --model.source {source(folder)} --out mine"
    assert main(words.split()) == 0
    hint = capsys.readouterr().out.splitlines()[-1]
    assert hint == f"mine  (next: regmix evaluate mine --model.source {source(folder)})"
    command = hint.partition("next: regmix ")[2].rstrip(")").split()
    assert main([*command, *QUICK.split()]) == 0


@pytest.mark.slow
def test_compare_goes_on_with_code_that_its_own_line_names(folder: Path, capsys) -> None:
    words = f"compare digits-regmix --methods standard --seeds 1 {SMALL} --model function --out both --attacks clean "
    words += f"--no-verdict --examples 20 --model.source {source(folder)}"
    (folder / "random.py").write_text("raise SystemExit('a file of the current folder took the place of a library')")
    assert main(words.split()) == 0, capsys.readouterr().err
    result = folder / "both" / "standard-seed0" / "result.json"
    facts = json.loads(result.read_text())
    result.write_text(json.dumps({"classes": facts["classes"], "shape": facts["shape"]}))  # as after a kill
    assert main(words.split()) == 0, capsys.readouterr().err
    assert json.loads(result.read_text())["status"] == "finished"


@pytest.mark.slow
def test_points_of_another_space_choose_no_flags(folder: Path, capsys) -> None:
    out = folder / "swept"
    out.mkdir()
    evil = [
        {"model": "function", "model.source": source(folder)},
        {"lr": "0.1", "model.source": source(folder)},
        {f"model.source={source(folder)}": "x"},
        {"lr": f"0.1 --model.source={source(folder)}"},
        ["lr"],
        {"lr": 0.1},
    ]
    (out / "points.jsonl").write_text("".join(json.dumps({"point": p, "validation": 1}) + "\n" for p in evil))
    words = f"sweep digits-regmix --space lr=0.1 {SMALL} --model.width 4 --attacks clean --no-verdict --examples 20"
    assert main([*words.split(), "--out", str(out)]) == 0, capsys.readouterr().err
    assert not ran(folder)
    assert [*json.loads((out / "comparison.json").read_text())["methods"]]


def test_the_pickles_of_a_search_by_ray_are_not_opened_unasked(folder: Path, capsys) -> None:
    (folder / "swept" / "ray").mkdir(parents=True)
    words = f"sweep digits-regmix --space lr=0.1 {SMALL} --engine ray --out swept"
    assert main(words.split()) == 2
    assert "pickled and could run any code; allow it with --trust-code" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system has no O_NOFOLLOW")
def test_a_link_in_a_run_directory_leads_nowhere(folder: Path, capsys) -> None:
    outside = folder / "outside"
    outside.write_text("mine\n")
    assert main(f"train digits-regmix {SMALL} --model.width 4 --out mine".split()) == 0
    (folder / "elsewhere").mkdir()
    (folder / "mine" / "evaluations").symlink_to(folder / "elsewhere")
    assert main(f"evaluate mine --attacks fgsm {QUICK.split(' ', 2)[2]}".split()) == 2
    assert "leads out of mine" in capsys.readouterr().err
    assert not list((folder / "elsewhere").iterdir())
    (folder / "mine" / "metrics.jsonl").unlink()
    (folder / "mine" / "metrics.jsonl").symlink_to(outside)
    main(["train", "--resume", "mine"])
    assert outside.read_text() == "mine\n"


def test_trust_is_exact() -> None:
    Trust("a:b").check("a:b", Path("run"))
    Trust(everything=True).check("a:b", Path("run"))
    for trust in (Trust(), Trust("a:c"), Trust("")):
        with pytest.raises(UserError, match="run asks for the code a:b"):
            trust.check("a:b", Path("run"))


def test_the_command_that_resumes_names_the_code_of_the_model_and_is_quoted() -> None:
    own = Experiment(model=Function("nets:net"))
    assert own.resume_command(Path("my runs")) == "regmix train --resume 'my runs' --model.source nets:net"
    assert Experiment().resume_command(Path("a")) == "regmix train --resume a"
