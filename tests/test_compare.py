"""`regmix compare`: trains, evaluates and tabulates, and never repeats what is done."""

import json
from pathlib import Path

import pytest

from contracts.evaluated import evaluated, folder, record
from regmix.cli import main
from regmix.compare import method_words
from regmix.runs import Run
from regmix.training import validation

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
    assert "Over the seeds" in (out / "report.html").read_text()

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


def test_a_training_that_fails_ends_the_comparison_with_its_line(tmp_path, capfd):
    assert compare(tmp_path / "out", "regmix", "--validation", "5000") == 2
    told = capfd.readouterr().err
    assert "validation" in told
    assert "regmix-seed0: the training ended with exit code 2" in told
