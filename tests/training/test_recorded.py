"""Recorded steps give what the same steps give otherwise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regmix
from contracts.devices import DEVICE, ON_CPU
from contracts.test_methods import METHODS
from regmix.config import Ema, GatedEma, NoAveraging, OneCycle, Swa
from regmix.data import Digits, Loader, load
from regmix.methods import FgsmAt, FgsmBp, FgsmFuap, FgsmPgk, FreeAt, GradAlign, Liet, Method, PgdAt, RegMix, Tdat
from regmix.models import Function, SmallCnn, build
from regmix.recipes import recipe
from regmix.runtime import devices
from regmix.training import recorded
from regmix.training.recorded import obstacle
from regmix.training.trainee import Trainee
from regmix.types import Batch, Clock, Losses, UserError

pytestmark = pytest.mark.device
EPOCHS = 3


class Training:
    """Trains on 41 images in five batches of 5 and four of 4."""

    def __init__(self, cuda_graph: str, model: nn.Module | None = None, **changes: Any) -> None:
        self.images = load(Digits(), "train").subset(torch.arange(41))
        settings = {"batch_size": 5, "pad": 1, "flip": True, "epochs": EPOCHS, "cuda_graph": cuda_graph} | changes
        experiment = replace(recipe("digits-regmix"), **settings)
        torch.manual_seed(0)
        fabric = devices.start(DEVICE.type, "32")
        self.loader = Loader(self.images, 5, DEVICE, pad=1, flip=True, seed=0, replays=experiment.method.replays)
        self.notes: list[str] = []
        network = model if model is not None else build(SmallCnn(width=4), 10, 1)
        self.trainee = Trainee(fabric, network, experiment, self.images, len(self.loader), self.notes.append)

    def run(self, until: int = EPOCHS) -> "Training":
        trainee = self.trainee
        for epoch in range(trainee.progress.epoch, until):
            trainee.begin()
            for batch in self.loader.epoch(epoch):
                trainee.learn(batch)
            trainee.progress.trained = 1.0
            trainee.end_epoch(None)
        return self

    def kept(self) -> dict[str, Tensor]:
        state = self.trainee.state_dict()
        found = {f"model/{name}": value for name, value in state["model"].items()}
        found |= {f"averaged/{name}": value for name, value in ((state["averaged"] or {}).get("model", {})).items()}
        found |= {f"memory/{name}": value.float() for name, value in (state["memory"] or {}).items()}
        for row in self.trainee.progress.rows:
            found |= {f"{row.epoch}/{name}": torch.tensor(v) for name, v in (row.terms | row.stats).items()}
            found[f"{row.epoch}/robust"] = torch.tensor(row.train_robust)
        return found


def assert_same(one: Training, other: Training) -> None:
    left, right = one.kept(), other.kept()
    assert left.keys() == right.keys()
    for name, value in left.items():
        if ON_CPU:
            assert torch.equal(value, right[name]), name
        elif name.startswith("model/"):  # a step along signs makes much of the last bit
            torch.testing.assert_close(value, right[name], rtol=0.05, atol=0.02)


FAST = {"regmix", "fgsm_pgk"}
"""Methods of the fast set on a CPU."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records the second step of a kind, or the third, where the memory grows to the size of a batch in the first."""
    monkeypatch.setattr(recorded, "REHEARSALS", 1)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, id=name, marks=[pytest.mark.slow] if ON_CPU and name not in FAST else [])
        for name, method in METHODS.items()
        if not method.second_order
    ],
)
def test_recorded_steps_train_as_the_others_do(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(method, FreeAt | FgsmBp | FgsmFuap | Tdat):
        monkeypatch.setattr(recorded, "REHEARSALS", 2)
    one = Training("off", method=method).run()
    other = Training("on" if ON_CPU else "auto", method=method).run()
    assert_same(one, other)
    steps = other.trainee._recorded
    if ON_CPU or steps.recorder is not None:
        assert other.notes == []
        assert steps._recordings
    else:  # a singular value decomposition waits for a GPU
        assert method.name == "nu_at"
        assert "it waits for a value" in other.notes[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"averaging": Ema(), "clip_norm": 0.5, "schedule": OneCycle()},
        {"ramp": 0.5, "optimizer": "adamw", "lr": 0.01, "layer_decay": 0.9},
        {"averaging": GatedEma(), "method": FgsmPgk(reset=2), "awp": 0.01, "awp_warm_up": 2},
        {"averaging": Swa(start=1), "label_mass": 0.6, "method": RegMix(start="carried")},
        {"method": FreeAt(replays=2)},
        {"accumulate": 3},
    ],
    ids=["clipped", "ramped", "perturbed weights", "smoothed", "replayed", "accumulated"],
)
def test_what_changes_from_step_to_step_changes_in_recorded_steps_too(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "REHEARSALS", 2)
    assert_same(Training("off", **changes).run(), Training("on", **changes).run())


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, id=method.name, marks=[pytest.mark.slow] if ON_CPU and method.name != "fgsm_pgk" else [])
        for method in (RegMix(), FgsmPgk(), FgsmBp(), Liet())
    ],
)
def test_a_resumed_training_ends_as_without_the_interruption(method: Method, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recorded, "REHEARSALS", 2)
    whole, first = Training("on", method=method).run(), Training("on", method=method).run(1)
    torch.save(first.trainee.state_dict(), tmp_path / "state")
    for then in ("on", "off"):
        later = Training(then, method=method)
        later.trainee.load_state_dict(torch.load(tmp_path / "state"), tmp_path)
        assert_same(later.run(), whole)
    # The same trainee goes back, as after a rollback.
    first.run(3)
    first.trainee.load_state_dict(torch.load(tmp_path / "state"), tmp_path)
    assert_same(first.run(), whole)


def test_a_step_whose_gradient_is_not_finite_is_left_out_of_recorded_steps_too() -> None:
    class Once(nn.Module):
        """NaN where an image is nearly white."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = build(SmallCnn(width=4), 10, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * torch.where(x.mean() > self.inner.linear.bias.sum() * 0 + 0.41, torch.nan, 1.0)

    trainings = []
    for setting in ("off", "on"):
        torch.manual_seed(1)
        trainings.append(Training(setting, Once(), method=FgsmAt()).run())
    assert_same(*trainings)
    lost = [row.lost_steps for row in trainings[0].trainee.progress.rows]
    assert lost == [row.lost_steps for row in trainings[1].trainee.progress.rows]


class Around(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.function = build(SmallCnn(width=4), 10, 1), function
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def replacing(model: Around, x: Tensor) -> Tensor:
    model.seen = model.seen + 1
    return model.inner(x)


ODD = {
    "waits": (lambda model, x: model.inner(x) * (1.0 if x.sum() > 0 else 2.0), "waits for a value"),
    "draws": (lambda model, x: model.inner(x) * (1 + 0 * __import__("random").random()), "random numbers on the host"),
    "replaces": (replacing, "instead of changing it in place"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_model_whose_steps_cannot_be_recorded_is_told_in_one_line(name: str, monkeypatch) -> None:
    function, said = ODD[name]
    with pytest.raises(UserError, match=said):
        Training("on", Around(function)).run()
    training = Training("on", Around(function))
    training.trainee._recorded._insists = False  # as with auto on a GPU
    training.run()
    (note,) = training.notes
    assert said in note
    assert "\n" not in note
    torch.manual_seed(0)
    assert training.trainee._recorded.recorder is None


@pytest.mark.parametrize(
    ("changes", "device", "expected"),
    [
        ({"cuda_graph": "off"}, "cuda", ""),
        ({"cuda_graph": "auto"}, "cpu", ""),
        ({"cuda_graph": "auto"}, "cuda", None),
        ({"cuda_graph": "on"}, "cpu", None),
        ({"method": GradAlign()}, "cuda", "grad_align takes second derivatives"),
        ({"model": Function("my_model:build")}, "cuda", "a model of your own"),
        ({"model": Function("my_model:build"), "cuda_graph": "on"}, "cuda", None),
    ],
)
def test_where_steps_are_recorded(changes: dict[str, Any], device: str, expected: str | None) -> None:
    experiment = replace(recipe("digits-regmix"), **changes)
    found = obstacle(experiment, experiment.method, torch.device(device))
    assert found is None if expected is None else (found or "").startswith(expected)
    assert found != "" or expected == ""


def test_a_method_that_hides_what_it_takes_from_the_clock_is_not_recorded() -> None:
    class Growing(PgdAt):
        needs_clock = True

        def compute(self, model: Any, batch: Batch, threat: Any, memory: Any, clock: Clock) -> Losses:
            losses = super().compute(model, batch, threat, memory, clock)
            return losses._replace(terms={name: term * (1 + clock.step) for name, term in losses.terms.items()})

    experiment = replace(recipe("digits-regmix"), cuda_graph="on")
    assert "give it a `phase`" in (obstacle(experiment, Growing(), DEVICE) or "")


def test_what_cannot_be_recorded_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="grad_align takes second derivatives; leave out --cuda-graph on"):
        regmix.train("digits-regmix", tmp_path / "run", method="grad_align", cuda_graph="on", progress=False)
    assert not (tmp_path / "run").exists()


def test_recordings_are_few_and_the_oldest_goes_first() -> None:
    training = Training("on", method=Liet(refresh=100), epochs=5, averaging=NoAveraging()).run(5)
    steps = training.trainee._recorded
    assert len(steps._recordings) == recorded.MOST
    assert max(phase[0][1] for phase, *_ in steps._recordings) == 4
