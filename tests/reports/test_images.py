import base64
import io

import numpy as np
import pytest
from PIL import Image

from regmix.reports.images import magnification, png, triples
from regmix.reports.load import Examples


def _examples(x: np.ndarray, delta: np.ndarray) -> Examples:
    labels = np.zeros(len(x), int)
    return Examples(x, delta.astype(np.float32), labels, labels, labels, "fgsm", 0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_what_pillow_reads(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        read = np.asarray(image)
    assert np.array_equal(read.reshape(5, 7, channels), pixels.transpose(1, 2, 0))


@pytest.mark.parametrize(("longest", "factor"), [(0.1, 5), (8 / 255, 15), (0.5, 1), (0.8, 1), (0.0, 1)])
def test_magnification_keeps_the_perturbation_in_range(longest, factor):
    delta = np.zeros((1, 1, 2, 2))
    delta[0, 0, 0, 0] = -longest
    assert magnification(_examples(np.zeros((1, 1, 2, 2), np.uint8), delta)) == factor


def test_a_triple_shows_the_clean_the_magnified_and_the_adversarial_image():
    x = np.full((1, 1, 1, 2), 51, np.uint8)
    delta = np.array([0.1, 0.0]).reshape(1, 1, 1, 2)
    (images,) = triples(_examples(x, delta))
    decoded = [base64.b64decode(uri.removeprefix("data:image/png;base64,")) for uri in images]
    values = [np.asarray(Image.open(io.BytesIO(data))).ravel().tolist() for data in decoded]
    assert values[0] == [51, 51]
    assert values[1] == pytest.approx([255, 128], abs=1)
    assert values[2] == pytest.approx([76, 51], abs=1)


def test_images_of_other_channels_give_nothing():
    assert triples(_examples(np.zeros((2, 4, 3, 3), np.uint8), np.zeros((2, 4, 3, 3)))) == []
