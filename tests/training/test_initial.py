"""Trainings that start from given weights, freeze parts, and ramp eps and the regularisation terms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from contracts.finished import assert_same
from regmix.cli.entry import main
from regmix.config import Experiment, from_json
from regmix.methods import RegMix, Trades
from regmix.models import SmallCnn, build, load_weights
from regmix.threats import Linf
from regmix.training.prepare import _freeze, initial_weights
from regmix.training.readiness import kept_in_eval, train_mode
from regmix.training.session import Session
from regmix.training.step import TrainStep
from regmix.types import Batch, Clock, UserError

TINY = "--train-examples 60 --validation 50 --epochs 2 --model.width 4 --seed 3 --averaging none"


def trained(out: Path, words: str = "") -> dict[str, torch.Tensor]:
    assert main(f"train digits-regmix {TINY} {words} --out {out}".split()) == 0
    return load_file(out / "last.safetensors")


def test_a_training_starts_from_the_weights_of_a_run_or_a_file(tmp_path: Path, capsys) -> None:
    first = trained(tmp_path / "first")
    best = load_file(tmp_path / "first" / "best.safetensors")
    still = "--method standard --lr 1e-12 --weight-decay 0 --epochs 1"
    for source, expected in (("first", best), ("first/last.safetensors", first)):
        again = trained(tmp_path / f"again-{Path(source).name}", f"{still} --init {tmp_path}/{source}")
        learned = [name for name in expected if "running" not in name and "batches" not in name]
        assert learned
        assert all(torch.equal(again[name], expected[name]) for name in learned)
    assert "weights to start from: " in capsys.readouterr().out


def test_of_standard_training_the_last_weights_are_taken(tmp_path: Path) -> None:
    trained(tmp_path / "plain", "--method standard")
    assert initial_weights(Experiment(init=str(tmp_path / "plain"))) == tmp_path / "plain" / "last.safetensors"
    for spelling in (f"{tmp_path}/plain/", f"{tmp_path}/./plain", f"{tmp_path}//plain"):
        assert initial_weights(Experiment(init=spelling)) == tmp_path / "plain" / "last.safetensors"
    trained(tmp_path / "robust", "--method fgsm_at")
    assert initial_weights(Experiment(init=str(tmp_path / "robust"))) == tmp_path / "robust" / "best.safetensors"
    (tmp_path / "robust" / "best.safetensors").unlink()
    with pytest.raises(UserError, match=r"was removed; put the file back, or start from .*robust/last\.safetensors"):
        initial_weights(Experiment(init=str(tmp_path / "robust")))
    last = tmp_path / "robust" / "last.safetensors"
    assert initial_weights(Experiment(init=str(last))) == last


def test_weights_for_other_classes_are_told(tmp_path: Path, capsys) -> None:
    """The last layer has as many outputs, which mean something else."""
    trained(tmp_path / "first")
    result = json.loads((tmp_path / "first" / "result.json").read_text())
    result["classes"] = result["classes"][::-1]
    (tmp_path / "first" / "result.json").write_text(json.dumps(result))
    capsys.readouterr()
    trained(tmp_path / "second", f"--init {tmp_path}/first")
    told = capsys.readouterr().out
    assert "; the classes are other ones (" in told
    assert "images: 60 to train on and 50 to validate on" in told


def test_labels_that_speak_against_the_class_are_refused(tmp_path: Path, capsys) -> None:
    words = f"train digits-regmix {TINY} --label-mass 0.1 --out {tmp_path}/run"
    assert main(words.split()) == 2
    assert "of 10 classes it must be more than 0.1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_last_layer_starts_anew_for_another_number_of_classes(tmp_path: Path) -> None:
    source, target = build(SmallCnn(width=4), 7, 1), build(SmallCnn(width=4), 10, 1)
    own = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_weights(target, source.state_dict(), classes=10)
    head = [name for name in own if own[name].shape[:1] == (10,)]
    assert len(head) == 2
    assert list(report.anew) == head
    assert "start anew" in report.summary()
    for name, value in target.state_dict().items():
        assert torch.equal(value, own[name] if name in head else source.state_dict()[name]), name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--init missing.pt", "missing.pt is not a file"),
        ("--init .", "is not a run directory"),
        ("--init wide.safetensors", "wide.safetensors does not fit the model"),
        ("--init both.pt", "--init-weights raw"),
        ("--init-weights raw", "name the file with --init"),
        ("--freeze nothing", "--freeze nothing: the model has no part of this name"),
        ("--layer-decay 0", "layer_decay is 0.0"),
        ("--ramp 1.5", "ramp is 1.5"),
    ],
)
def test_what_cannot_be_started_from_is_one_line(words: str, said: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(build(SmallCnn(width=6), 10, 1).state_dict(), "wide.safetensors")
    state = build(SmallCnn(width=4), 10, 1).state_dict()
    torch.save({"state_dict": state, "model_ema": {name: value + 1 for name, value in state.items()}}, "both.pt")
    assert main(f"train digits-regmix {TINY} {words} --out run".split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("run").exists()


def test_frozen_parts_keep_their_weights_and_statistics(tmp_path: Path) -> None:
    untrained = trained(
        tmp_path / "still", "--method standard --lr 1e-12 --weight-decay 0 --epochs 1 --freeze conv1 bn1"
    )
    frozen = trained(tmp_path / "frozen", "--freeze conv1 bn1")
    names = [name for name in frozen if name.startswith(("conv1.", "bn1."))]
    assert any("running_mean" in name for name in names)
    assert all(torch.equal(frozen[name], untrained[name]) for name in names)
    assert not all(torch.equal(frozen[name], untrained[name]) for name in frozen if name not in names)


def test_frozen_parts_of_a_model_that_comes_in_evaluation_mode_keep_their_statistics() -> None:
    """As a model does whose function has just loaded its weights."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    _freeze(model, ["0"])
    train_mode(model, kept_in_eval(model))
    assert [module.training for module in model] == [False, True, True, True]


def test_weights_with_another_normalisation_are_not_normalised_anew(tmp_path: Path, capsys) -> None:
    """The file's normalisation is the one that the weights were trained with."""
    trained(tmp_path / "plain")
    words = f"train digits-regmix {TINY} --normalise --out {tmp_path}"
    assert main(f"{words}/refused --init {tmp_path}/plain".split()) == 2
    assert "leave out --normalise" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    trained(tmp_path / "normalised", "--normalise")
    assert main(f"{words}/same --init {tmp_path}/normalised".split()) == 0


def test_a_fine_tuning_resumes_exactly_without_the_file_it_started_from(tmp_path: Path, monkeypatch) -> None:
    trained(tmp_path / "first")
    words = (
        f"train digits-regmix {TINY} --epochs 3 --optimizer adamw --lr 0.001 --schedule cosine --ramp 0.6 "
        f"--layer-decay 0.9 --decayed weights --init {tmp_path}/first"
    )
    assert main(f"{words} --out {tmp_path}/whole".split()) == 0
    real = Session.validate
    with monkeypatch.context() as patch:

        def validate(self: Session):
            if self.progress.epoch == 1:
                raise KeyboardInterrupt
            return real(self)

        patch.setattr(Session, "validate", validate)
        assert main(f"{words} --out {tmp_path}/broken".split()) == 130
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    assert main(["train", "--resume", str(tmp_path / "broken")]) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_a_run_without_a_state_does_not_begin_anew_from_other_weights(tmp_path: Path, monkeypatch, capsys) -> None:
    trained(tmp_path / "first")
    with monkeypatch.context() as patch:
        patch.setattr(Session, "begin_or_resume", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
        words = f"train digits-regmix {TINY} --init {tmp_path}/first --out {tmp_path}/run"
        assert main(words.split()) == 130
    trained(tmp_path / "second", "--seed 4")
    (tmp_path / "second" / "best.safetensors").replace(tmp_path / "first" / "best.safetensors")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert "is missing or has changed since" in capsys.readouterr().err


class Recording(Trades):
    """TRADES that notes the radius of every step."""

    def compute(self, model, batch, threat, memory, clock):
        seen.append(threat.eps)
        return super().compute(model, batch, threat, memory, clock)


seen: list[float] = []


@pytest.mark.parametrize("method", [RegMix(), Trades()])
def test_eps_and_regularisation_terms_rise_together(method) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    batch = Batch(torch.rand(4, 3, 2, 2).double(), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    for step, share in ((0, 1 / 6), (2, 1 / 2), (5, 1.0), (9, 1.0)):
        clock = Clock(step // 5, 2, step % 5, 5)  # ten steps, of which the ramp takes six
        torch.manual_seed(1)
        ramped = TrainStep(model, method, Linf(0.3), 3, 1.0, ramp=0.6)(batch, None, clock)
        torch.manual_seed(1)
        plain = method.compute(model, batch, Linf(0.3 * share), None, clock)
        assert ramped.terms.keys() == plain.terms.keys()
        assert len(ramped.terms) > 1
        for name, value in plain.terms.items():
            wanted = value if name == "classify" else share * value
            torch.testing.assert_close(ramped.terms[name], wanted, rtol=1e-12, atol=0)


def test_without_a_ramp_eps_is_full_from_the_first_step() -> None:
    seen.clear()
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    batch = Batch(torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), torch.arange(2))
    TrainStep(model, Recording(), Linf(0.3), 3, 1.0)(batch, None, Clock(0, 2, 0, 5))
    assert seen == [0.3]


def test_the_recipe_for_photos_holds_out_a_share_of_few_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, count in (("a", 30), ("b", 10)):
        folder = tmp_path / "photos" / "train" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    words = f"train photos --data.root {tmp_path}/photos --data.size 16 --model.width 4 --epochs 1 --out {tmp_path}/run"
    assert main(words.split()) == 0
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert sum(data["validation"]["counts"]) == 6  # 15 % of 40
    assert sum(data["train"]["counts"]) == 34
    experiment = from_json((tmp_path / "run" / "config.json").read_text())
    assert experiment == replace(experiment, validation=None, optimizer="adamw", ramp=0.3)


def test_exported_weights_and_those_of_the_hub_are_weights_to_start_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    first = trained(tmp_path / "first", "--method standard --epochs 1")
    assert main(["export", str(tmp_path / "first"), "--format", "hub", "--out", str(tmp_path / "hub")]) == 0
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / "hub"))
    for number, source in enumerate((str(tmp_path / "hub"), "hf:someone/robust")):
        still = trained(tmp_path / f"still{number}", f"--lr 1e-12 --weight-decay 0 --epochs 1 --init {source}")
        assert "tensors loaded" in capsys.readouterr().out
        assert all(torch.allclose(still[name], first[name]) for name in first if name.endswith("weight"))


def test_it_is_told_how_good_the_weights_to_start_from_are(tmp_path: Path, capsys) -> None:
    trained(tmp_path / "plain", "--method standard --epochs 30 --train-examples 400")
    row = json.loads((tmp_path / "plain" / "metrics.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    trained(tmp_path / "next", f"--init {tmp_path}/plain --epochs 1")
    printed = capsys.readouterr().out
    share = f"{100 * row['validation']['clean']:.1f}%"
    assert (
        f"before the training they classify {share} of the 50 validation images correctly, without an attack" in printed
    )
    assert row["validation"]["clean"] > 0.4
    assert "no better than chance" not in printed

    state = load_file(tmp_path / "plain" / "last.safetensors")
    wrongs = {
        "classes": {name: value.roll(3, 0) if value.shape[:1] == (10,) else value for name, value in state.items()},
        "normalisation": state | {"normalise.mean": state["normalise.mean"] + 40},
    }
    assert len([name for name, value in state.items() if not torch.equal(wrongs["classes"][name], value)]) == 2
    for name, wrong in wrongs.items():
        save_file(wrong, tmp_path / f"{name}.safetensors")
        trained(tmp_path / name, f"--init {tmp_path}/{name}.safetensors --epochs 1")
        assert "WARNING the weights to start from are no better than chance" in capsys.readouterr().out

    assert main(["train", "--resume", str(tmp_path / "next"), "--epochs", "2"]) == 0
    assert "before the training" not in capsys.readouterr().out
