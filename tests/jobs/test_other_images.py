"""A run is evaluated on test images of another folder: which layouts are read, and what is refused or said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import regmix
from regmix.cli.entry import main
from regmix.data import Digits
from regmix.types import UserError


def put(base: Path, classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0, count: int = 3) -> None:
    """Random images, `count` per class, which differ with the seed."""
    random = np.random.default_rng(seed)
    for name in classes:
        (base / name).mkdir(parents=True)
        for n in range(count):
            Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(base / name / f"{n}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    put(root / "train", seed=1, count=10)
    put(root / "test", seed=2)
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> regmix.Run:
    return regmix.train(
        "photos", tmp_path_factory.mktemp("runs") / "photos", data={"root": photos, "size": 8}, model={"width": 4},
        epochs=1, batch_size=8, progress=False,
    )  # fmt: skip


def notes(run: regmix.Run, root: Path) -> list[str]:
    """What an evaluation on other images records about them."""
    regmix.evaluate_run(run, "clean", data=root, checkpoint="last", verdict=False, progress=False)
    return recorded(run, root)


def recorded(run: regmix.Run, root: Path) -> list[str]:
    """The notes of the evaluation on the images of a folder."""
    first = f"the test images are those of {root}, not those that the run's settings name"
    (evaluation,) = (each.evaluation for each in run.evaluations() if first in each.evaluation.notes)
    assert evaluation.examples == sum(evaluation.subject.data.counts)
    return [note for note in evaluation.notes if note != first]


@pytest.mark.parametrize("where", ["", "test", "val"])
def test_a_folder_may_hold_test_images_alone(run: regmix.Run, tmp_path: Path, where: str) -> None:
    put(tmp_path / where, seed=3)
    assert not any("training images" in note for note in notes(run, tmp_path))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda root: put(root, ("cat",)), "other classes than .* dog is gone"),
        (lambda root: put(root, ("cat", "dog", "fox")), "other classes than .* fox is new"),
        (lambda root: put(root, ("Cat", "dog")), "cat is gone, Cat is new"),
        (lambda root: put(root / "photos"), "cat, dog are gone, photos is new"),
        (lambda root: Image.new("RGB", (8, 8)).save(root / "a.png"), "no class folders"),
        (lambda root: put(root / "train"), "val is missing"),
        (lambda root: (put(root), (root / "__MACOSX").mkdir()), "__MACOSX has no images"),
    ],
)  # fmt: skip
def test_other_layouts_are_refused_in_one_line(
    run: regmix.Run, tmp_path: Path, make: Callable[[Path], None], complaint: str
) -> None:
    make(tmp_path)
    before = len(run.evaluations())
    with pytest.raises(UserError, match=complaint) as refused:
        notes(run, tmp_path)
    assert "\n" not in str(refused.value)
    assert len(run.evaluations()) == before


def test_a_folder_that_is_missing_is_named(run: regmix.Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is missing"):
        notes(run, tmp_path / "nowhere")


def test_an_evaluation_knows_whether_its_images_are_the_runs_own(run: regmix.Run, photos: Path, tmp_path: Path) -> None:
    def places() -> list[str]:
        return [each.evaluation.elsewhere for each in run.evaluations()]

    put(tmp_path / "new", seed=7)
    notes(run, tmp_path / "new")
    assert places()[-1] == str(tmp_path / "new")
    put(tmp_path / "copy", seed=2)  # the run's own test images
    notes(run, tmp_path / "copy")
    assert places().count("") == 0
    before = len(places())
    regmix.evaluate_run(run, "clean", checkpoint="last", verdict=False, progress=False)
    assert len(places()) == before  # the same images are one set
    (own,) = (each.evaluation for each in run.evaluations() if not each.evaluation.elsewhere)
    assert not any("not those that the run's settings name" in note for note in own.notes)


def test_of_evaluations_within_one_second_the_latest_is_last(run: regmix.Run, tmp_path: Path) -> None:
    roots = [tmp_path / str(n) for n in range(5)]
    for n, root in enumerate(roots):
        put(root, seed=20 + n, count=1)
        notes(run, root)
    assert [each.evaluation.elsewhere for each in run.evaluations()][-5:] == [str(root) for root in roots]


def test_training_images_among_them_are_told(run: regmix.Run, photos: Path) -> None:
    said = notes(run, photos / "train")
    assert any("20 of 20 test images are also training images, byte for byte" in note for note in said)


def test_folders_beside_the_test_images_are_told(run: regmix.Run, tmp_path: Path) -> None:
    put(tmp_path / "test", seed=4)
    put(tmp_path, ("cat", "extra"), seed=5)
    assert f"{tmp_path}: 2 folders beside test/ were skipped: cat, extra" in notes(run, tmp_path)


def test_the_command_line_takes_the_folder_too(run: regmix.Run, tmp_path: Path) -> None:
    put(tmp_path, seed=6)
    words = f"evaluate {run.path} --data.root {tmp_path} --attacks clean --checkpoint last --no-verdict"
    assert main(words.split()) == 0
    assert recorded(run, tmp_path)


def test_data_without_a_folder_have_no_other_one(tmp_path: Path) -> None:
    made = regmix.train(
        "digits-regmix", tmp_path / "digits", train_examples=60, validation=50, epochs=1, progress=False
    )
    with pytest.raises(UserError, match=r"the data of .*digits are digits, which has no root"):
        regmix.evaluate_run(made, "clean", data=tmp_path, progress=False)
    regmix.evaluate_run(made, "clean", data=Digits(), examples=20, checkpoint="last", verdict=False, progress=False)
