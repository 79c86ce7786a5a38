"""What is told of an image and a mask, on images of which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.quality.evidence import content_box, doubt, grain, inverted_layout, layout, mask_traits, raggedness
from cxredge.radiograph import Radiograph

SIZE = 128


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return network_input(Radiograph(make_radiograph(2, 300, 300).pixels), SIZE)


def two_lungs() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[30:100, 20:55] = mask[30:100, 75:110] = True
    return mask


def logits_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 6, -8).astype(np.float32)


def test_padding_is_left_out_whatever_its_shade(image: np.ndarray) -> None:
    assert content_box(image).top < 5
    for shade in (-1, 1):
        padded = np.pad(image, ((20, 30), (10, 0)), constant_values=shade)
        box = content_box(padded)
        assert (box.top, box.bottom, box.left) == pytest.approx((20, 20 + SIZE, 10), abs=4)


def test_an_image_that_shows_nothing_is_all_content() -> None:
    box = content_box(np.zeros((SIZE, SIZE), np.float32))
    assert (box.top, box.bottom, box.left, box.right) == (0, SIZE, 0, SIZE)


def test_layout_does_not_change_with_contrast_brightness_or_padding(image: np.ndarray) -> None:
    expected = layout(image, content_box(image))
    np.testing.assert_allclose(layout(0.3 * image + 0.5, content_box(0.3 * image + 0.5)), expected, atol=1e-3)
    padded = np.pad(image, 20, constant_values=-1)
    assert np.abs(layout(padded, content_box(padded)) - expected).mean() < 0.1


def test_layout_of_the_negative_follows_from_that_of_the_image(image: np.ndarray) -> None:
    box = content_box(image)
    np.testing.assert_allclose(layout(-image, box), inverted_layout(layout(image, box)), atol=1e-4)


def test_layout_of_a_rotated_image_is_another(image: np.ndarray) -> None:
    box = content_box(image)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    assert np.abs(layout(turned, content_box(turned)) - layout(image, box)).mean() > 0.2


def test_noise_shows_as_grain(image: np.ndarray) -> None:
    noisy = image + np.random.default_rng(1).normal(0, 0.3, image.shape).astype(np.float32)
    assert grain(noisy, content_box(noisy)) > grain(image, content_box(image)) + 1


def test_traits_of_a_clean_mask_are_small(image: np.ndarray) -> None:
    mask = two_lungs()
    traits = mask_traits(image, content_box(image), logits_of(mask), mask)
    assert traits.border_share == traits.cleaned_share == traits.doubt_share == 0
    assert traits.raggedness < 0.01
    assert traits.signal[1:] == pytest.approx([6, 8])
    assert traits.shape.shape == (100,)


def test_what_cleaning_changes_is_counted(image: np.ndarray) -> None:
    clean = two_lungs()
    raw = clean.copy()
    raw[60:70, 30:40] = False  # a hole
    raw[110:115, 60:70] = True  # a third component
    traits = mask_traits(image, content_box(image), logits_of(raw), clean)
    assert traits.cleaned_share == pytest.approx(150 / clean.sum())


def test_border_pixels_and_lung_where_nothing_is_to_be_seen_are_counted(image: np.ndarray) -> None:
    mask = two_lungs()
    mask[30:100, :20] = True
    dark = image.copy()
    dark[80:] = -1
    traits = mask_traits(dark, content_box(dark), logits_of(mask), mask)
    assert traits.border_share == pytest.approx(70 / (4 * SIZE - 4))
    assert traits.beyond_share == pytest.approx(mask[80:].sum() / mask.sum(), abs=0.02)


def test_teeth_make_an_outline_ragged() -> None:
    toothed = two_lungs()
    toothed[30:100:4, 55:62] = True
    assert raggedness(toothed) > raggedness(two_lungs()) + 70


def test_doubt_is_a_region_and_not_the_line_around_a_lung() -> None:
    line = logits_of(two_lungs())
    line[30:100, 55] = 0
    assert doubt(line) == 0
    region = line.copy()
    region[40:70, 60:70] = 1
    assert doubt(region) == pytest.approx(300, abs=30)
