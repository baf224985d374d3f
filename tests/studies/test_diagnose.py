"""`regmix diagnose`: what it prints, what it probes, and that its commands help."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from regmix.cli.entry import main
from regmix.reports.load import load
from regmix.studies import diagnose as diagnosis
from regmix.studies.diagnose import diagnose, plain_accuracy
from regmix.types import UserError

TINY = "--train-examples 200 --validation 100 --model.width 8 --batch-size 20 --device cpu"
EVALUATE = "--attacks clean,pgd-5 --no-verdict --device cpu --checkpoint last"


def call(words: str) -> None:
    assert main(shlex.split(words)) == 0


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diagnosed") / "run"
    call(f"train digits-regmix {TINY} --epochs 3 --averaging none --method.beta 5000 --out {path}")
    call(f"evaluate {path} {EVALUATE}")
    return path


def test_it_prints_findings_and_commands(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"diagnose {spoiled} --no-probe")
    text = capsys.readouterr().out
    assert text.startswith(f"{spoiled}: ")
    assert "regularisation too strong: The weight beta counts 500 per example" in text
    assert f"try: regmix train --from {spoiled} --method.beta 20 --out {spoiled}-2\n" in text


def test_json_has_classes_confusions_and_the_order_of_breaking(
    spoiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(f"diagnose {spoiled} --no-probe --json")
    (found,) = json.loads(capsys.readouterr().out)
    classes, shown = found["classes"], load(spoiled).evaluations["last"]
    beta = {"what": "beta per example", "value": 500.0, "low": None, "high": None}
    assert found["findings"][0]["evidence"][0] == beta
    right = sum(row["robust"]["accuracy"] * row["images"] for row in classes["rows"])
    assert right == pytest.approx(shown.columns["pgd-5@0.15"].correct)
    diagonal = sum(row[place] for place, row in enumerate(classes["matrix"]))
    assert diagonal == shown.columns["pgd-5@0.15"].correct
    assert sum(map(sum, classes["matrix"])) == 500
    lost = shown.columns["clean"].correct - shown.columns["pgd-5@0.15"].correct
    assert (len(classes["first"]), len(classes["last"])) == (min(lost, 12), 12)


def test_a_run_is_judged_by_its_own_evaluation_whatever_is_beside_it(spoiled: Path, tmp_path: Path) -> None:
    """Others were evaluated on fewer images, under a weaker attack, or not at all."""
    alone = diagnose([spoiled], probe=False)[0].as_json()
    beside = []
    for name, evaluation in (("few", "pgd-5 --examples 40"), ("weak", "fgsm"), ("unevaluated", None)):
        beside.append(tmp_path / name)
        call(f"train digits-regmix {TINY} --epochs 1 --averaging none --method fgsm_at --out {beside[-1]}")
        if evaluation is not None:
            call(f"evaluate {beside[-1]} --attacks clean,{evaluation} --no-verdict --device cpu --checkpoint last")
    call(f"evaluate {spoiled} --attacks clean,pgd-5 --examples 40 --no-verdict --device cpu --checkpoint last")
    try:
        for others in (beside[:1], beside[1:2], beside[2:], beside):
            for paths in ([spoiled, *others], [*others, spoiled]):
                (again,) = (each for each in diagnose(paths, probe=False) if each.subject.run.path == spoiled)
                assert again.as_json() == alone
    finally:
        for folder in (spoiled / "evaluations").glob("*-40-*"):
            shutil.rmtree(folder)


def test_the_plain_model_is_trained_for_a_while_only(spoiled: Path) -> None:
    assert plain_accuracy(spoiled, "cpu").accuracy > 0.5  # 30 steps of standard training
    with pytest.raises(UserError, match="no epoch of a plain model is complete after 0 s"):
        plain_accuracy(spoiled, "cpu", seconds=0.0)


def test_it_is_told_that_a_users_own_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "linear_digits.py").write_text(code)
    words = "--train-examples 200 --validation 100 --epochs 1 --averaging none"
    call(f"train digits-regmix {words} --model linear_digits:net --out own")
    capsys.readouterr()
    call("diagnose own")
    assert "without its probe: its model or data are functions of your own" in capsys.readouterr().out


def test_a_run_of_standard_training_beside_it_spares_the_probe(
    spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standard = tmp_path / "standard"
    call(f"train digits-regmix {TINY} --epochs 1 --averaging none --method standard --out {standard}")
    monkeypatch.setattr(diagnosis, "plain_accuracy", lambda *_, **__: pytest.fail("probed"))
    assert diagnose([standard])[0].plain is None  # it has no weights to judge
    for not_compared in ([spoiled, standard], [spoiled]):
        with pytest.raises(pytest.fail.Exception):
            diagnose(not_compared)
    call(f"evaluate {standard} {EVALUATE}")
    assert len(diagnose([spoiled, standard])) == 2


@pytest.mark.slow
def test_spoiled_runs_are_diagnosed_and_their_commands_help(tmp_path: Path) -> None:
    """The benchmark's smallest part."""
    import runpy

    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "diagnose.py"))
    chosen = ["1 epoch", "eps 0.1/255", "no evaluation", "regmix, seed 0"]
    spoilt, sound = script["run"](tmp_path, script["SMALL"], chosen)
    assert [row["right"] for row in spoilt] == [True] * 3
    assert all(row["after"] > row["before"] for row in spoilt)
    assert [row["found"] for row in sound] == [[]]
