import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from regmix.data import draw_views, from_view, take, to_view
from regmix.types import View


@st.composite
def settings(draw):
    """(values [B, C, H, W], views, pad) of all small sizes."""
    batch, channels, height, width = (draw(st.integers(1, 5)) for _ in range(4))
    # A window always sees something of its image as long as the padding is smaller than the image.
    pad, flip = draw(st.integers(0, min(height, width) - 1)), draw(st.booleans())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randn(batch, channels, height, width, generator=generator)
    return values, draw_views(batch, pad, flip, generator), pad


def look(image: torch.Tensor, top: int, left: int, flip: bool, pad: int) -> torch.Tensor:
    """The reference for one image [C, H, W]."""
    height, width = image.shape[1:]
    window = F.pad(image, (pad,) * 4)[:, top : top + height, left : left + width]
    return window.flip(-1) if flip else window


@given(settings())
def test_to_view_pads_crops_and_mirrors(setting):
    values, view, pad = setting
    expected = [look(v, *(part[b] for part in view[:3]), pad) for b, v in enumerate(values)]
    assert torch.equal(to_view(values, view, pad), torch.stack(expected))


@given(settings(), st.data())
def test_take_shows_the_same_as_to_view(setting, data):
    values, view, pad = setting
    images = (values.abs() * 50).to(torch.uint8)
    order = torch.tensor(data.draw(st.permutations(range(len(images)))))
    expected = to_view(images[order], view, pad)
    padded = F.pad(images, (pad,) * 4)
    for stored in (padded, padded.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(take(stored, order, view, pad), expected)


@given(settings())
def test_from_view_is_the_inverse_of_to_view(setting):
    values, view, pad = setting
    assert torch.equal(from_view(to_view(values, view, pad), view, pad, onto=values), values)


@given(settings())
def test_from_view_changes_exactly_what_the_window_saw(setting):
    values, view, pad = setting
    seen = to_view(torch.ones_like(values), view, pad)
    updated = from_view(to_view(values, view, pad) + 10, view, pad, onto=values)
    moved = updated != values
    # Pixels of the window that lie in the padding have no place in the image.
    assert moved.sum() == seen.sum()
    assert torch.allclose(updated[moved], values[moved] + 10)


@given(settings())
def test_inputs_stay_as_they_are(setting):
    values, view, pad = setting
    before, onto = values.clone(), torch.zeros_like(values)
    from_view(to_view(values, view, pad), view, pad, onto)
    assert torch.equal(values, before)
    assert not onto.any()


def test_views_are_uniform_over_all_windows_and_both_sides():
    view = draw_views(9000, 1, True, torch.Generator().manual_seed(0))
    counts = (view.top * 3 + view.left).bincount(minlength=9)
    assert ((counts - 1000).abs() < 150).all()
    assert abs(view.flip.float().mean() - 0.5) < 0.03


def test_without_padding_or_mirror_a_view_is_the_image():
    values = torch.rand(4, 3, 5, 5)
    view = draw_views(4, 0, False, torch.Generator())
    assert torch.equal(to_view(values, view, 0), values)


def test_an_asymmetric_example_by_hand():
    image = torch.tensor([[[[1, 2], [3, 4]]]])
    view = View(torch.tensor([2]), torch.tensor([1]), torch.tensor([True]))  # one row down, then mirrored
    assert to_view(image, view, 1).tolist() == [[[[4, 3], [0, 0]]]]
    onto = torch.full_like(image, 9)
    assert from_view(torch.tensor([[[[5, 6], [7, 8]]]]), view, 1, onto).tolist() == [[[[9, 9], [6, 5]]]]


def test_gradients_and_dtypes_pass_through():
    values = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    view = draw_views(2, 1, True, torch.Generator().manual_seed(1))
    shown = to_view(values, view, 1)
    assert shown.dtype == torch.float64
    shown.sum().backward()
    seen_once = from_view(torch.ones_like(values), view, 1, torch.zeros_like(values))
    assert torch.equal(values.grad, seen_once)
