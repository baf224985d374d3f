"""Small copies of the images that break first and last."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regmix.cli.entry import main
from regmix.data import Digits, ImageSet, load
from regmix.evaluation.examples import thumbnails, write_loss_surfaces
from regmix.runs import Run
from regmix.runs.evaluations import Examples
from regmix.runs.load import load_model
from regmix.runs.loss_surface import LossSurfaces
from regmix.runs.thumbnails import Thumbnails, breaking
from regmix.threats import Linf


def images(height: int, width: int, count: int = 3) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    return ImageSet(pixels, torch.zeros(count, dtype=torch.int64), ("a",))


def test_large_images_are_reduced_by_area_averages() -> None:
    those = images(128, 96)
    few = thumbnails(those, np.array([10, 11, 12]), [2, 0])
    assert few.index.tolist() == [12, 10]
    means = those.pixels()[[2, 0]].double().unflatten(2, (64, 2)).unflatten(4, (48, 2)).mean((3, 5))
    assert few.pixels.shape == (2, 3, 64, 48)
    assert np.abs(few.pixels - means.numpy()).max() <= 0.5


def test_small_images_are_kept_as_they_are_and_none_is_fine() -> None:
    those = images(32, 20)
    assert np.array_equal(thumbnails(those, np.arange(3), [1]).pixels[0], those.pixels()[1].numpy())
    assert thumbnails(images(200, 20), np.arange(3), []).pixels.shape[0] == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    words = "--train-examples 400 --validation 50 --epochs 12 --model.width 4 --method fgsm_at --averaging none"
    assert main(f"train digits-regmix {words} --out {path}".split()) == 0
    return path


def test_an_evaluation_keeps_the_images_that_break_first_and_last(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    test = load(Digits(), "test").pixels().numpy()
    for attacks in ("fgsm", "pgd-5"):  # the second evaluation adds to the first: the order is that of both
        words = f"evaluate {path} --attacks {attacks} --eps 0.02,0.1 --examples 60 --checkpoint last"
        assert main(words.split()) == 0
        (stored,) = Run.open(path).evaluations()
        few, when, outcomes = (
            Thumbnails.read(stored.folder),
            breaking(stored.evaluation, stored.outcomes()),
            stored.outcomes(),
        )
        assert few is not None
        assert {*few.index} == {*outcomes.index[when.first + when.last]}
        assert np.array_equal(few.pixels, test[few.index])
        first, last = when.first[0], when.last[0]
        assert outcomes.survives["clean"][when.first].all()
        assert sum(~kept[first] for kept in outcomes.survives.values()) > sum(
            ~kept[last] for kept in outcomes.survives.values()
        )
    assert when.attacks.max() == 4


def test_an_evaluation_keeps_the_loss_around_images_that_break_and_that_do_not(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    words = f"evaluate {path} --attacks fgsm --examples 60 --checkpoint last --no-verdict"
    assert main(words.split()) == 0
    (stored,) = Run.open(path).evaluations()
    shown = stored.examples()
    assert shown is not None
    right = shown.clean_prediction == shown.label
    kinds = {bool(broken) for broken in (shown.adversarial_prediction != shown.label)[right]}
    around, test, model = LossSurfaces.read(stored.folder), load(Digits(), "test"), load_model(path, "last").model
    assert around is not None
    assert around.broken.tolist() == sorted(kinds, reverse=True)
    x, y = test.pixels()[around.index].float() / 255, test.labels[around.index]
    assert around.label.tolist() == y.tolist()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    middle = len(around.steps) // 2
    assert around.steps[[0, middle, -1]].tolist() == [-1, 0, 1]
    assert around.loss[:, middle, middle] == pytest.approx(loss.numpy(), abs=1e-5)
    assert (around.loss[:, middle, -1] > around.loss[:, middle, 0]).all()  # it rises along the steepest direction


def test_no_loss_around_an_image_where_the_model_is_random(run: Path, tmp_path: Path) -> None:
    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(x.flatten(1))
            return logits + torch.randn_like(logits)

    rows = np.arange(8)
    shown = Examples(*(np.zeros(1),) * 2, rows, rows, 9 - rows, "fgsm", 0.1)
    test = load(Digits(), "test")
    task = SimpleNamespace(test=SimpleNamespace(images=test, index=torch.arange(len(test))), device=torch.device("cpu"),
                           questions=SimpleNamespace(batch_size=8),
                           experiment=SimpleNamespace(threat=Linf(0.1)))  # fmt: skip
    write_loss_surfaces(tmp_path, Noisy(), task, shown)  # type: ignore[arg-type]
    assert LossSurfaces.read(tmp_path) is None
