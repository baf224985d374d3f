"""The guard against catastrophic overfitting: its signs, its rule, and what a run does about an alarm."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from methods import reference
from regmix.cli.entry import main
from regmix.config.guard import Guard
from regmix.data import ImageSet, pick, spread
from regmix.methods import FgsmPgk
from regmix.methods.remedies import MAX_ROLLBACKS, remedy
from regmix.runs.records import Epoch
from regmix.threats import L2, Linf
from regmix.training import validation
from regmix.training.guard import alignment
from regmix.training.saving import Saving
from regmix.training.trainee import Trainee
from regmix.training.validation import ALIGNED, validate
from regmix.types import Batch, UserError

HEALTHY = {"pgd": 0.30, "fgsm": 0.34, "alignment": 0.8}
COLLAPSED = {"pgd": 0.02, "fgsm": 0.60, "alignment": 0.1}


@pytest.mark.parametrize(
    ("now", "alarmed"),
    [
        (COLLAPSED, True),
        (COLLAPSED | {"alignment": 0.8}, True),
        (COLLAPSED | {"fgsm": 0.03}, True),
        # Lower accuracy alone is robust overfitting, or a learning rate that is too high.
        (COLLAPSED | {"fgsm": 0.03, "alignment": 0.5}, False),
        # A gap between FGSM and PGD, or lost alignment, is none as long as PGD does not break the model.
        ({"pgd": 0.16, "fgsm": 0.60, "alignment": 0.1}, False),
        ({"pgd": 0.31, "fgsm": 0.35, "alignment": 0.3}, False),
    ],
)
def test_it_takes_two_signs(now: dict[str, float], alarmed: bool) -> None:
    before = [{"pgd": 0.1, "fgsm": 0.1, "alignment": 0.9}, HEALTHY, {"pgd": 0.28, "fgsm": 0.31, "alignment": 0.7}]
    reason = Guard().alarm(before, now, 500)
    assert (reason is not None) == alarmed
    if reason:
        assert reason.startswith("catastrophic overfitting")
        assert "30.0% to 2.0%" in reason
        assert "\n" not in reason


def test_the_first_validation_cannot_be_judged() -> None:
    assert Guard().alarm([], COLLAPSED, 500) is None


def test_it_is_silent_about_falls_that_chance_explains() -> None:
    before, now = [{"pgd": 0.10, "fgsm": 0.10, "alignment": 0.8}], {"pgd": 0.02, "fgsm": 0.08, "alignment": 0.8}
    assert Guard().alarm(before, now, 100) is None
    assert Guard().alarm(before, now, 500)


def test_it_compares_with_the_best_not_the_last() -> None:
    slowly = [{"pgd": p, "fgsm": 0.4, "alignment": 0.8} for p in (0.3, 0.25, 0.2, 0.16)]
    assert Guard().alarm(slowly, {"pgd": 0.14, "fgsm": 0.4, "alignment": 0.8}, 500)
    assert Guard(drop=0.4).alarm(slowly, {"pgd": 0.14, "fgsm": 0.4, "alignment": 0.8}, 500) is None


@pytest.mark.parametrize("drop", [0.0, 1.0, float("nan")])
def test_a_drop_that_means_nothing_is_refused(drop: float) -> None:
    with pytest.raises(UserError, match="drop"):
        Guard(drop=drop)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5)], ids=["linf", "l2"])
def test_alignment_is_the_mean_cosine_of_the_gradients(threat: Linf | L2) -> None:
    net, x = reference.tiny_net(), reference.images(5)
    y = torch.tensor([0, 2, 3, 1, 2])
    noise = threat.project(threat.uniform(x, torch.Generator().manual_seed(0)), x)
    plain = reference.Plain(net)
    gradients = []
    for start in (torch.zeros_like(x), noise):
        at = (x + start).requires_grad_()
        z = plain(at, batch_statistics=False)
        gradients.append(
            reference.input_gradient(z, at, lambda z: reference.cross_entropy(z, reference.smoothed(y, 1.0))).flatten(1)
        )
    one, other = gradients
    cosines = (one * other).sum(1) / ((one**2).sum(1) * (other**2).sum(1)) ** 0.5
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert alignment(net, Batch(x, y), threat) == pytest.approx(float(cosines.sum() / 5), rel=1e-10)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_linear_model_is_perfectly_aligned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 2)).double()
    value = alignment(model, Batch(reference.images(5), torch.tensor([0, 1, 1, 0, 1])), Linf(eps=0.2))
    assert value == pytest.approx(1)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5)], ids=["linf", "l2"])
def test_the_alignment_of_sorted_images_is_that_of_all_classes_whatever_the_batch_size(threat: Linf | L2) -> None:
    torch.manual_seed(0)
    count = 4 * ALIGNED
    pixels, labels = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8), torch.arange(count) // ALIGNED
    images = ImageSet(pixels, labels, tuple("abcd"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    fabric = Fabric(accelerator="cpu", devices=1)
    measured = [
        validate(fabric, model, images, threat, size, lambda: None, signs=True)[0]["alignment"]
        for size in (8, 50, count)
    ]
    chosen = spread(labels, ALIGNED)
    assert torch.bincount(labels[chosen]).tolist() == [ALIGNED // 4] * 4
    few = pick(images, chosen, "cpu")
    assert measured == pytest.approx([alignment(model, few._replace(x=few.x.double()), threat)] * 3, rel=1e-9)


TINY = "--model.width 4 --validation 100 --train-examples 100 --epochs 5 --seed 3"


def train(path: Path, words: str) -> tuple[list[dict], dict]:
    assert main(f"train digits-regmix {TINY} {words} --out {path}".split()) == 0
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((path / "result.json").read_text())


@pytest.fixture
def collapse_in_epoch(monkeypatch: pytest.MonkeyPatch):
    """Makes the guard find a collapse at the given number of validations."""

    def plan(*when: int) -> None:
        real = Guard.alarm
        calls = 0

        def alarm(self: Guard, before: list, now: dict, examples: int) -> str | None:
            nonlocal calls
            calls += 1
            assert real(self, before, now, examples) is None
            assert {"pgd", "fgsm", "alignment"} <= now.keys()
            return "catastrophic overfitting: as planned" if calls in when else None

        monkeypatch.setattr(Guard, "alarm", alarm)

    return plan


def test_an_alarm_is_told_and_kept(tmp_path: Path, capsys, collapse_in_epoch) -> None:
    collapse_in_epoch(3, 4)
    rows, result = train(tmp_path / "run", "")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [alarm["epoch"] for alarm in result["alarms"]] == [3, 4]
    assert result["status"] == "finished"
    # The second validation in a row is the same collapse.
    assert capsys.readouterr().out.count("ALARM") == 1


def test_stop_ends_the_run_before_the_collapsed_weights_are_kept(tmp_path: Path, collapse_in_epoch) -> None:
    collapse_in_epoch(3)
    rows, result = train(tmp_path / "run", "--guard.action stop")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert (result["status"], result["epochs"]) == ("stopped", 2)


def test_rollback_goes_on_from_the_last_healthy_validation_with_the_remedy(
    tmp_path: Path, capsys, collapse_in_epoch
) -> None:
    collapse_in_epoch(4)
    rows, result = train(tmp_path / "run", "--guard.action rollback")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [alarm["epoch"] for alarm in result["alarms"]] == [4]
    assert result["status"] == "finished"
    assert "back to epoch 3" in capsys.readouterr().out
    undisturbed, _ = train(tmp_path / "other", "--guard.action rollback")
    assert [row["loss"] for row in rows[:3]] == [row["loss"] for row in undisturbed[:3]]
    assert all(one["loss"] != other["loss"] for one, other in zip(rows[3:], undisturbed[3:], strict=True))


def test_weights_of_an_epoch_that_is_undone_are_not_the_best(tmp_path: Path, collapse_in_epoch, monkeypatch) -> None:
    real, seen = validation.validate, []

    def rising(*arguments: Any, **more: Any) -> Any:
        values, warning = real(*arguments, **more)
        seen.append(0.01 * len(seen))
        return values | {"pgd": seen[-1]}, warning

    monkeypatch.setattr(validation, "validate", rising)
    collapse_in_epoch(2)
    saved = []
    keep = Saving.keep
    monkeypatch.setattr(
        Saving, "keep", lambda self, weights, *more: (saved.extend(weights), keep(self, weights, *more))
    )
    _, result = train(tmp_path / "run", "--guard.action rollback --best-of either --averaging ema --epochs 2")
    assert (saved.count("best"), result["best_epoch"]) == (4, 2)  # weights and average of epoch 1, and of epoch 2 anew


def test_a_remedy_of_free_at_sees_every_image_in_an_epoch(tmp_path: Path, collapse_in_epoch, monkeypatch) -> None:
    real, seen = Trainee.learn, {}

    def learn(trainee: Trainee, batch: Batch) -> None:
        seen.setdefault((trainee.method.name, trainee.progress.epoch), []).extend(batch.index.tolist())
        real(trainee, batch)

    monkeypatch.setattr(Trainee, "learn", learn)
    collapse_in_epoch(2)
    train(tmp_path / "run", "--guard.action rollback --method free_at --epochs 2 --batch-size 20")
    assert len({*seen["free_at", 0]}) == 20
    assert sorted(seen["n_fgsm", 1]) == [*range(100)]


@pytest.mark.parametrize("level", range(1, MAX_ROLLBACKS + 1))
def test_remedies_report_what_the_average_of_a_run_may_need(level: int) -> None:
    assert remedy(FgsmPgk(), level).reports_ratio


def test_a_second_collapse_brings_the_stronger_remedy_and_a_third_none(
    tmp_path: Path, capsys, collapse_in_epoch
) -> None:
    collapse_in_epoch(2, 4, 5)
    rows, result = train(tmp_path / "run", "--guard.action rollback")
    told = capsys.readouterr().out
    # Validations 1 and 2, then 2 (healthy) and 3, then 3 and on.
    assert "back to epoch 1; training continues with NFgsm" in told
    assert "back to epoch 2; training continues with PgdAt" in told
    assert told.count("back to epoch") == 2
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [alarm["epoch"] for alarm in result["alarms"]] == [2, 3, 3]


def test_rollback_goes_behind_epochs_that_were_not_validated(tmp_path: Path, capsys, collapse_in_epoch) -> None:
    collapse_in_epoch(2)
    rows, _ = train(tmp_path / "run", "--guard.action rollback --validate-every 2")
    assert "back to epoch 2" in capsys.readouterr().out
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]


def test_a_run_with_the_remedy_resumes_exactly(tmp_path: Path, collapse_in_epoch, monkeypatch) -> None:
    words = "--guard.action rollback --method regmix --method.start carried"
    collapse_in_epoch(3)
    whole, _ = train(tmp_path / "whole", words)
    from regmix.jobs.console import ConsoleDisplay

    real = ConsoleDisplay.epoch

    def killed(self: ConsoleDisplay, row: Epoch) -> None:
        real(self, row)
        if row.epoch == 4:
            raise KeyboardInterrupt

    collapse_in_epoch(3)
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleDisplay, "epoch", killed)
        assert main(f"train digits-regmix {TINY} {words} --out {tmp_path / 'cut'}".split()) == 130
    collapse_in_epoch()
    assert main(f"train --resume {tmp_path / 'cut'}".split()) == 0
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole]
    last = "last.safetensors"
    assert (tmp_path / "cut" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["alarms"]
