"""Numbers that the arithmetic cannot hold are refused, whichever part of an experiment has them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regmix import L1, L2, Linf
from regmix.cli.entry import main
from regmix.config import Experiment, Piecewise, from_json, to_json
from regmix.data import Folder
from regmix.methods import Atas, FgsmRs, Trades
from regmix.models import ResNet, SmallCnn, build
from regmix.types import UserError

SMALL = "--epochs 1 --train-examples 60 --validation 50 --model.width 2"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Experiment(lr=1e308),
        lambda: Experiment(lr=1e-320),
        lambda: Experiment(lr=float("nan")),
        lambda: Experiment(clip_norm=float("inf")),
        lambda: Experiment(weight_decay=1e300),
        lambda: Experiment(seed=2**43),
        lambda: Experiment(seed=10**5000),
        lambda: Experiment(split_seed=2**63),
        lambda: Experiment(epochs=10**6 + 1),
        lambda: Experiment(pad=10**5000),
        lambda: Experiment(method=Trades(lam=1e308)),
        lambda: Experiment(method=FgsmRs(step_size=1e-320)),
        lambda: Experiment(method=Atas(c=1e308)),
        lambda: Experiment(schedule=Piecewise(decay=1e-320)),
        lambda: Experiment(schedule=Piecewise(milestones=(1, 2**43))),
        lambda: Experiment(data=Folder(root="x", size=10**9)),
        lambda: Linf(eps=1e-320),
        lambda: L2(eps=1e308),
        lambda: L1(eps=float("nan")),
        lambda: build(SmallCnn(), 10, std=(1e-320,)),
        lambda: build(SmallCnn(), 10, std=(float("nan"),)),
        lambda: build(SmallCnn(), 10, mean=(float("inf"),)),
        lambda: build(SmallCnn(width=10**9), 10),
        lambda: build(ResNet(width=65_536), 10),
    ],
)
def test_what_no_float32_holds_is_refused_in_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(UserError) as found:
        make()
    assert "\n" not in str(found.value)


def test_the_largest_seed_trains(tmp_path: Path) -> None:
    assert main(f"train digits-regmix {SMALL} --seed {2**42} --out {tmp_path / 'run'}".split()) == 0


@pytest.mark.parametrize("value", ["true", '"3"', "3.5", "1e400", "NaN", "9" * 5000, "null", "[3]"])
def test_a_config_says_numbers_as_numbers(value: str) -> None:
    text = to_json(Experiment())
    with pytest.raises(UserError, match=r"^config\.json"):
        from_json(text.replace('"epochs": 30', f'"epochs": {value}'))


@pytest.mark.parametrize(
    "words", ["--train-examples 1", "--batch-size 1", "--train-examples 3 --batch-size 2", "--accumulate 60"]
)
def test_a_batch_of_one_image_is_no_batch_for_batchnorm(words: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    start = f"train digits-regmix {SMALL} --model resnet"  # of eight pixels one is left
    assert main(f"{start} {words} --out {out}".split()) == 2
    told = capsys.readouterr().err
    assert "leave a batch of one image, of which BatchNorm cannot learn" in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_a_network_that_sees_several_pixels_may_have_one_image(tmp_path: Path) -> None:
    assert main(f"train digits-regmix {SMALL} --train-examples 1 --out {tmp_path / 'run'}".split()) == 0
