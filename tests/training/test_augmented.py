"""Training with augmentations: it works with every method that may have them, and resumes exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.finished import assert_same
from regmix.cli.entry import main
from regmix.config import Experiment
from regmix.data import ColourJitter, CropShift, CutMix, ImageSet, Loader, Mixup, RandomErasing, ResizedCrop
from regmix.methods import METHODS
from regmix.methods.memory import Setup
from regmix.methods.per_image import PerImage
from regmix.models import SmallCnn, build
from regmix.objectives import smooth
from regmix.threats import Linf
from regmix.training.step import TrainStep
from regmix.types import Batch, Clock

TINY = "--train-examples 60 --validation 50 --epochs 3 --batch-size 20 --model.width 4 --seed 3"
FOLLOWED = "--flip --pad 0 --crop crop_shift --crop.most 3 --colour jitter --erase random"
FREE = "--crop resized_crop --colour rand_augment --erase cutout --erase.side 3 --mix cutmix"


@pytest.mark.slow
@pytest.mark.parametrize("settings", [f"--method fgsm_ep {FOLLOWED}", f"--method regmix {FREE}"])
def test_resuming_is_exact(settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = f"train digits-regmix {settings} --averaging none {TINY}"
    assert main(f"{command} --out {whole}".split()) == 0
    real, calls = Loader.epoch, []

    def interrupted(self, number, first=0):
        for step, batch in enumerate(real(self, number, first)):
            if number == 1 and step + first == 1 and not calls:
                calls.append(0)
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Loader, "epoch", interrupted)
    assert main(f"{command} --out {broken}".split()) == 130
    monkeypatch.setattr(Loader, "epoch", real)
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [f"--method fgsm_ep {FOLLOWED} --balance loss", f"--method regmix {FREE}"])
def test_recorded_steps_learn_the_same(settings: str, tmp_path: Path) -> None:
    for recorded in ("on", "off"):
        command = f"train digits-regmix {settings} --averaging none {TINY} --cuda-graph {recorded} --device cpu"
        assert main(f"{command} --out {tmp_path / recorded}".split()) == 0
    files = [(tmp_path / recorded / "last.safetensors").read_bytes() for recorded in ("on", "off")]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_from_augmented_images(name: str) -> None:
    """Finite losses and gradients, with all that the method may have."""
    method = METHODS[name]()
    settings = {"crop": CropShift(most=3), "colour": ColourJitter(), "erase": RandomErasing()}
    experiment = Experiment(method=method, **settings)
    for mix in (Mixup(), CutMix()):
        try:
            experiment = replace(experiment, mix=mix)
        except ValueError:
            continue
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (24, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(24) % 4, tuple("abcd"))
    loader = Loader(
        images, 12, "cpu", pad=0, flip=True, augmentations=experiment.augmentations, seed=0, replays=method.replays
    )
    torch.manual_seed(0)
    model = build(SmallCnn(width=4), 4, channels=1)
    memory = method.memory(Setup(24, 4, images.shape, Linf(0.1), experiment.border))
    step = TrainStep(model, method, Linf(0.1), 4, 0.9)
    for epoch in range(2):
        for number, batch in enumerate(loader.epoch(epoch)):
            total = step(batch, memory, Clock(epoch, 2, number, len(loader))).total
            total.backward()
            assert total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_perturbation_moves_with_its_pixel_through_shifts_and_erasing() -> None:
    """Each pixel's value in the memory is that of the last time it was shown, and 0 before.

    Every pixel of an image has a value of its own, which is what is remembered: it tells the pixel of a value.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.stack([torch.randperm(64, generator=generator) for _ in range(10)]).view(10, 1, 8, 8) + 64
    images = ImageSet(pixels.to(torch.uint8), torch.zeros(10, dtype=torch.int64), ("a",))
    augmentations = Experiment(crop=CropShift(most=4), erase=RandomErasing(probability=0.8)).augmentations
    loader = Loader(images, 10, "cpu", pad=0, flip=True, augmentations=augmentations, seed=0)
    memory = PerImage(10, (1, 8, 8), 4, "cpu", dtype=torch.float32)
    expected = torch.zeros(10, 1, 8, 8)
    for epoch in range(3):
        (batch,) = loader.epoch(epoch)
        hidden = batch.view.hidden
        before = memory.read(batch)
        for b, number in enumerate(batch.index.tolist()):
            codes = (batch.x[b] * 255).round().long()
            for code, value in zip(codes[~hidden[b]].tolist(), before[b][~hidden[b]].tolist(), strict=True):
                assert value == expected[number][pixels[number] == code].item()
        assert (before[hidden] == 0).all()
        memory.write(batch, (batch.x + epoch).masked_fill(hidden, 99.0))
        for b, number in enumerate(batch.index.tolist()):
            shown = torch.isin(pixels[number], (batch.x[b] * 255).round().long()[~hidden[b]])
            expected[number] = torch.where(shown, pixels[number].float() / 255 + epoch, expected[number])
        assert torch.equal(memory.gather(), expected)
    assert 0.5 < float((expected > 0).double().mean()) < 1


def test_smoothing_mixed_labels_mixes_smoothed_ones() -> None:
    labels, other = torch.tensor([0, 3, 1]), torch.tensor([2, 3, 0])
    mixed = 0.3 * torch.nn.functional.one_hot(labels, 4) + 0.7 * torch.nn.functional.one_hot(other, 4)
    expected = 0.3 * smooth(labels, 4, 0.8) + 0.7 * smooth(other, 4, 0.8)
    assert torch.allclose(smooth(mixed, 4, 0.8), expected)
    x = torch.rand(3, 1, 8, 8)
    step = TrainStep(build(SmallCnn(width=4), 4, channels=1), METHODS["standard"](), Linf(0.1), 4, 0.8)
    loss = step(Batch(x, labels, soft=mixed), None, Clock(0, 1, 0, 1)).terms["classify"]
    log_p = step.model(x).log_softmax(1)
    assert torch.allclose(loss, -(expected * log_p).sum(1).mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--crop crop_shift --crop.most 8 --pad 0", "crop most is 8; it must be less than the images' side, 8 pixels"),
        ("--method atas --crop resized_crop --pad 0", "cannot follow resized crops"),
    ],
)
def test_impossible_combinations_are_refused_before_anything_is_written(
    flags: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"train digits-regmix {flags} {TINY} --out {tmp_path / 'run'}".split()) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_resized_crops_of_the_whole_image_are_the_image() -> None:
    crop = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    pixels = torch.randint(256, (5, 3, 6, 6), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(5, dtype=torch.int64), ("a",))
    augmentations = Experiment(crop=crop).augmentations
    (batch,) = Loader(images, 5, "cpu", pad=0, flip=False, augmentations=augmentations, seed=0).epoch(0)
    assert torch.allclose(batch.x, pixels[batch.index].float() / 255, atol=1e-6)
