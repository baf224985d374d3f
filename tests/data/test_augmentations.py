"""Crops, erasing and mixing beside references that look at one image at a time, and what the loader makes of them."""

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from torch import Tensor

from data.test_colour import torchvision
from regmix.data import (
    Augmentations,
    ColorShape,
    ColourJitter,
    CropShift,
    CutMix,
    Cutout,
    Idbh,
    ImageSet,
    Loader,
    Mixup,
    RandAugment,
    RandomErasing,
    ResizedCrop,
    decode,
    from_view,
    to_view,
)
from regmix.data.colour import OPERATIONS
from regmix.data.crops import inside, resized
from regmix.data.mix import beta
from regmix.data.recolour import NAMES
from regmix.data.stored import Stored
from regmix.types import Batch, UserError

HEIGHT, WIDTH = 12, 9


def uniform(count: int, draws: int, seed: int = 0) -> Tensor:
    return torch.rand(count, draws, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loader(images: ImageSet, augmentations: Augmentations, batch_size: int = 16, **more: Any) -> Loader:
    settings = {"pad": 0, "flip": True, "seed": 3} | more
    return Loader(images, batch_size, "cpu", augmentations=augmentations, **settings)


@pytest.fixture
def images() -> ImageSet:
    """40 random images 3x12x9 without black pixels, of three classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(1, 256, (40, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(40) % 3, ("a", "b", "c"))


@pytest.mark.parametrize("sides", ["shared", "each"])
def test_a_shifted_crop_is_a_rectangle_of_the_image_at_another_place(images: ImageSet, sides: str) -> None:
    crop = CropShift(least=2, most=5, sides=sides)
    noise = uniform(len(images), crop.draws)
    cut, put = crop.rectangles(noise, HEIGHT, WIDTH)
    strengths = set()
    for (top, left, h, w), (new_top, new_left, new_h, new_w) in zip(cut.tolist(), put.tolist(), strict=True):
        assert (h, w) == (new_h, new_w)
        assert 0 <= top <= HEIGHT - h
        assert 0 <= left <= WIDTH - w
        assert 0 <= new_top <= HEIGHT - h
        assert 0 <= new_left <= WIDTH - w
        spent = HEIGHT - h, WIDTH - w
        strengths.add(sum(spent) if sides == "shared" else spent[0])
        assert sides == "shared" or spent[0] == spent[1]
    assert strengths == {2, 3, 4, 5}


def test_batches_show_the_shifted_crops_and_their_views_say_so(images: ImageSet) -> None:
    augmentations = Augmentations(crop=CropShift(most=5))
    whole = images.images.float() / 255
    for number, batch in enumerate(loader(images, augmentations).epoch(2)):
        noise = augmentations.noise(3, 2, number, len(batch.x))
        cut, put = augmentations.crop.rectangles(noise, HEIGHT, WIDTH)
        assert batch.view is not None
        for b, (c, p) in enumerate(zip(cut.tolist(), put.tolist(), strict=True)):
            expected = torch.zeros(3, HEIGHT, WIDTH)
            expected[:, p[0] : p[0] + p[2], p[1] : p[1] + p[3]] = whole[
                batch.index[b], :, c[0] : c[0] + c[2], c[1] : c[1] + c[3]
            ]
            expected = expected.flip(-1) if batch.view.flip[b] else expected
            assert torch.equal(batch.x[b], expected)
        assert torch.equal(batch.x, to_view(whole[batch.index], batch.view, 5))


def test_what_a_view_hides_keeps_its_value_and_all_else_comes_back(images: ImageSet) -> None:
    augmentations = Augmentations(crop=CropShift(most=5), erase=RandomErasing(probability=1, fill=1.0))
    (batch,) = loader(images, augmentations, batch_size=40).epoch(0)
    values = torch.randn(40, 3, HEIGHT, WIDTH)
    assert torch.equal(from_view(to_view(values, batch.view, 5), batch.view, 5, onto=values), values)
    seen = to_view(torch.ones_like(values), batch.view, 5)
    assert torch.equal(seen == 0, batch.view.hidden.expand_as(seen))
    changed = from_view(to_view(values, batch.view, 5) + 10, batch.view, 5, onto=values) != values
    assert changed.sum() == seen.sum()
    # Pixels are black or white exactly where they are hidden; no pixel of the images is black.
    assert torch.equal((batch.x == 0).all(1, keepdim=True) | (batch.x == 1).all(1, keepdim=True), batch.view.hidden)


def test_a_resized_crop_is_torchs_interpolation_of_the_rectangle(images: ImageSet) -> None:
    x = images.images.double() / 255
    rectangles = ResizedCrop().rectangles(uniform(40, ResizedCrop.draws), HEIGHT, WIDTH)
    for image, (top, left, h, w), found in zip(x, rectangles.tolist(), resized(x, rectangles), strict=True):
        part = image[None, :, top : top + h, left : left + w]
        expected = F.interpolate(part, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0]
        assert torch.allclose(found, expected, atol=1e-12)


def test_a_resized_crop_is_torchvisions(images: ImageSet) -> None:
    tv = torchvision()
    x = images.images[:8].float() / 255
    rectangles = ResizedCrop().rectangles(uniform(8, ResizedCrop.draws), HEIGHT, WIDTH)
    for image, rectangle, found in zip(x, rectangles.tolist(), resized(x, rectangles), strict=True):
        assert torch.allclose(found, tv.resized_crop(image, *rectangle, size=[HEIGHT, WIDTH]), atol=1e-5)


def test_rectangles_have_the_published_areas_and_shapes() -> None:
    crops = ResizedCrop(scale=(0.2, 0.6), ratio=(0.5, 2.0)).rectangles(uniform(4000, ResizedCrop.draws), 100, 100)
    _, _, h, w = crops.double().T
    area, ratio = h * w / 1e4, w / h
    assert 0.19 < area.min() < 0.21
    assert 0.59 < area.max() < 0.61
    assert abs(area.mean() - 0.4) < 0.02
    assert abs(ratio.log().mean()) < 0.05
    assert 0.48 < ratio.min() < 0.52
    shares = (h * w / 1e4)[crops[:, 0] >= 0]
    assert len(shares) == 4000


def test_where_no_rectangle_fits_the_centre_is_taken() -> None:
    found = ResizedCrop(scale=(1.0, 1.0), ratio=(4.0, 4.0)).rectangles(uniform(3, ResizedCrop.draws), 8, 8)
    assert found.tolist() == [[3, 0, 2, 8]] * 3
    found = ResizedCrop(scale=(1.0, 1.0), ratio=(0.25, 0.25)).rectangles(uniform(3, ResizedCrop.draws), 8, 8)
    assert found.tolist() == [[0, 3, 8, 2]] * 3


def test_random_erasing_erases_so_often_and_so_much() -> None:
    erase = RandomErasing(probability=0.3, scale=(0.1, 0.3), ratio=(0.5, 2.0))
    rectangles = erase.rectangles(uniform(4000, erase.draws), 50, 50)
    erased = inside(rectangles, 50, 50).double().mean((1, 2, 3))
    assert abs((erased > 0).double().mean() - 0.3) < 0.03
    assert abs(erased[erased > 0].mean() - 0.2) < 0.01
    assert 0.08 < erased[erased > 0].min() < 0.12


def test_cutout_is_a_square_around_any_pixel() -> None:
    erased = inside(Cutout(side=4).rectangles(uniform(3000, 2), HEIGHT, WIDTH), HEIGHT, WIDTH)
    assert erased.sum((1, 2, 3)).max() == 16
    assert erased.sum((1, 2, 3)).min() == 4  # around a corner
    # A pixel in the middle is erased by 16 of the 108 places.
    assert abs(erased[:, 0, 6, 4].double().mean() - 16 / 108) < 0.025


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    drawn = beta(uniform(2000, 1)[:, 0], alpha)
    assert stats.kstest(drawn.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("mix", [Mixup(alpha=0.7), CutMix(alpha=1.0)])
def test_mixed_labels_are_the_shares_of_the_pixels(mix: Mixup | CutMix) -> None:
    """Images whose every pixel is their number: the mean of a mixture says what it is made of."""
    numbers = torch.tensor([0.1, 0.9, 0.3, 0.5, 0.7])
    labels = torch.tensor([0, 1, 2, 3, 1])
    x = numbers[:, None, None, None].expand(5, 3, HEIGHT, WIDTH).clone()
    noise = uniform(5, mix.draws)
    mixed = mix(Batch(x, labels), noise, 4)
    own, other = numbers, numbers.roll(1)
    share = (mixed.x.mean((1, 2, 3)) - other) / (own - other)
    assert 0.02 < share.min() < share.max() <= 1
    for b in range(5):
        expected = torch.zeros(4)
        expected[labels[b]] += share[b]
        expected[labels[b - 1]] += 1 - share[b]
        assert torch.allclose(mixed.soft[b], expected, atol=1e-5)
        assert mixed.y[b] == mixed.soft[b].argmax()
    assert torch.allclose(mixed.soft.sum(1), torch.ones(5))


ALL = {
    "shift": Augmentations(crop=CropShift(most=4)),
    "resized": Augmentations(crop=ResizedCrop()),
    "jitter": Augmentations(colour=ColourJitter()),
    "rand": Augmentations(colour=RandAugment()),
    "shape": Augmentations(colour=ColorShape()),
    "idbh": Augmentations(colour=Idbh()),
    "erasing": Augmentations(erase=RandomErasing()),
    "cutout": Augmentations(erase=Cutout(side=4)),
    "mixup": Augmentations(mix=Mixup()),
    "cutmix": Augmentations(mix=CutMix()),
    "together": Augmentations(CropShift(most=4), RandAugment(), RandomErasing(), CutMix()),
}


def same(ours: Batch, other: Batch) -> bool:
    pairs = [(ours.x, other.x), (ours.y, other.y), (ours.soft, other.soft), (ours.view.hidden, other.view.hidden)]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ALL)
def test_batches_depend_on_seed_pass_and_step_alone(images: ImageSet, name: str) -> None:
    whole = list(loader(images, ALL[name]).epoch(1))
    torch.manual_seed(5)
    np.random.seed(5)
    later = list(loader(images, ALL[name]).epoch(1, first=1))
    assert all(map(same, whole[1:], later))
    assert not any(map(same, whole, loader(images, ALL[name]).epoch(2)))
    plain = list(loader(images, Augmentations()).epoch(1))
    assert not torch.equal(torch.cat([batch.x for batch in whole]), torch.cat([batch.x for batch in plain]))
    for batch, before in zip(whole, plain, strict=True):
        assert batch.x.dtype == torch.float32
        assert 0 <= float(batch.x.min()) <= float(batch.x.max()) <= 1
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.index, before.index)  # the order and the flips stay
        assert torch.equal(batch.view.flip, before.view.flip)


@pytest.mark.parametrize("name", ["together", "jitter"])
def test_processes_share_what_one_would_show(images: ImageSet, name: str) -> None:
    augmentations = replace(ALL[name], mix=Augmentations().mix)
    whole = list(loader(images, augmentations).epoch(0))
    shares = [loader(images, augmentations, rank=rank, size=2).epoch(0) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(batch.x, torch.cat([part.x for part in parts]))


@dataclass(frozen=True)
class Encoded:
    """The images as a source that is decoded on access."""

    images: Tensor
    starts: None = None

    def __len__(self) -> int:
        return len(self.images)

    def encoded(self, number: int) -> decode.Encoded:
        stream = io.BytesIO()
        Image.fromarray(self.images[number].permute(1, 2, 0).numpy()).save(stream, "PNG")
        return decode.Encoded(str(number), stream.getvalue())


@pytest.mark.parametrize("name", ["together", "resized"])
def test_images_that_are_decoded_on_access_are_augmented_alike(images: ImageSet, name: str) -> None:
    streamed = ImageSet(Stored.of(Encoded(images.images), None), images.labels, images.classes)
    for one, other in zip(loader(images, ALL[name]).epoch(0), loader(streamed, ALL[name]).epoch(0), strict=True):
        assert same(one, other)


def test_a_replayed_batch_is_augmented_once(images: ImageSet) -> None:
    first, again, other = list(loader(images, ALL["together"], replays=2).epoch(0))[:3]
    assert same(first, again)
    assert not torch.equal(first.x, other.x)


def test_jitter_of_no_range_changes_nothing(images: ImageSet) -> None:
    nothing = Augmentations(colour=ColourJitter(brightness=0, contrast=0, saturation=0, hue=0))
    for batch, plain in zip(loader(images, nothing).epoch(0), loader(images, Augmentations()).epoch(0), strict=True):
        assert torch.allclose(batch.x, plain.x, atol=1e-6)


@pytest.mark.parametrize(("bias", "shears", "most"), [("color", 1 / 16, 10), ("shape", 0.15, 30)])
def test_idbh_draws_its_operations_as_often_and_as_strong_as_published(bias: Any, shears: float, most: int) -> None:
    count = 16_000
    (step,) = Idbh(bias).steps(uniform(count, Idbh.draws), 32, 32)
    of = {name: step.amount[step.operation == NAMES.index(name)] for name in OPERATIONS}
    assert len(of["skew_x"]) / count == pytest.approx(shears, abs=0.01)
    assert len(of["skew_y"]) / count == pytest.approx(shears, abs=0.01)
    assert len(of["rotate"]) / count == pytest.approx(2 * shears, abs=0.015)
    assert {*of["rotate"].tolist()} == {sign * k for sign in (-1, 1) for k in range(1, most + 1)}
    steepest = math.tan(0.15 if bias == "color" else 0.35)
    for name in ("skew_x", "skew_y"):
        assert math.tan(0.05) <= of[name].abs().min() < 0.06
        assert 0.95 * steepest < of[name].abs().max() <= steepest
        assert 0.4 < (of[name] > 0).double().mean() < 0.6
    for name, low in (("saturation", 0.1), ("sharpness", 0.1), ("brightness", 0.5), ("contrast", 0.5)):
        assert low <= of[name].min() < low + 0.05
        assert 1.85 < of[name].max() <= 1.9
    assert sum(map(len, of.values())) == count


def test_each_image_gets_operations_of_its_own() -> None:
    colour = RandAugment(count=2, magnitude=15)
    first, second = colour.steps(uniform(14_000, colour.draws), 20, 20)
    assert ((first.operation.bincount(minlength=15)[:14] - 1000).abs() < 150).all()
    assert abs(np.corrcoef(first.operation, second.operation)[0, 1]) < 0.03
    jitter = ColourJitter(brightness=0.3).steps(uniform(6000, 8), 20, 20)
    names = torch.stack([step.operation for step in jitter], 1)
    assert all(len({*row}) == 4 for row in names.tolist())
    assert len({tuple(row) for row in names.tolist()}) == 24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropShift(least=3, most=2), "crop least"),
        (lambda: ResizedCrop(scale=(0.0, 1.0)), "crop scale"),
        (lambda: ResizedCrop(ratio=(2.0, 1.0)), "crop ratio"),
        (lambda: ColourJitter(brightness=-0.1), "brightness"),
        (lambda: ColourJitter(hue=0.6), "hue"),
        (lambda: RandAugment(magnitude=31), "magnitude"),
        (lambda: RandAugment(operations=("blur",)), "blur"),
        (lambda: ColorShape(operations=()), "operations"),
        (lambda: RandomErasing(probability=1.5), "probability"),
        (lambda: RandomErasing(fill=255.0), "fill"),
        (lambda: Cutout(side=0), "side"),
        (lambda: Mixup(alpha=0.0), "alpha"),
        (lambda: CutMix(alpha=-1.0), "alpha"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
