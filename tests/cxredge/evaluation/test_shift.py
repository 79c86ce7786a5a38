"""The distribution shift is the one that the method defines, seeded by the image's name."""

from __future__ import annotations

import numpy as np
import pytest

from cxredge.evaluation.shift import SHIFTS, Shift, shifted
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph

SIZE = 64


@pytest.fixture
def radiograph() -> Radiograph:
    return Radiograph(np.random.default_rng(0).integers(0, 4000, (96, 80), dtype=np.uint16))


def test_no_shift_gives_the_radiograph_itself(radiograph: Radiograph) -> None:
    assert shifted(radiograph, "none", "a", SIZE) is radiograph


def test_levels_are_those_of_the_method() -> None:
    assert {"none": Shift(0, 0), "weak": Shift(0.3, 0.5), "harsh": Shift(0.6, 1.0)} == SHIFTS


@pytest.mark.parametrize("level", ["weak", "harsh"])
def test_shift_depends_on_name_and_level_alone(radiograph: Radiograph, level: str) -> None:
    first = shifted(radiograph, level, "a", SIZE).pixels
    np.testing.assert_array_equal(first, shifted(radiograph, level, "a", SIZE).pixels)
    assert (first != shifted(radiograph, level, "b", SIZE).pixels).any()


@pytest.mark.parametrize("level", ["weak", "harsh"])
def test_noise_has_the_deviation_of_the_level(level: str) -> None:
    """On an image of two values contrast and intensity give two values; what remains is the noise."""
    pixels = np.zeros((256, 256), np.uint8)
    pixels[:, 128:] = 200
    shifted_pixels = shifted(Radiograph(pixels), level, "a", 256).pixels
    for half in (shifted_pixels[:, :128], shifted_pixels[:, 128:]):
        assert half.std() == pytest.approx(SHIFTS[level].noise, rel=0.02)


@pytest.mark.parametrize("level", ["weak", "harsh"])
def test_contrast_and_intensity_stay_within_the_spread(level: str) -> None:
    pixels = np.zeros((128, 128), np.uint8)
    pixels[:, 64:] = 100
    spread = SHIFTS[level].spread
    for name in "abcdefgh":
        found = shifted(Radiograph(pixels), level, name, 128).pixels / 2 + 0.5
        dark, bright = found[:, :64].mean(), found[:, 64:].mean()
        assert -0.02 <= dark <= 0.5 * spread * (1 + spread) + 0.02
        assert 0.5 * (1 - spread) * (2 - spread) - 0.02 <= bright <= 1.02


def test_result_goes_through_the_ordinary_preprocessing(radiograph: Radiograph) -> None:
    image = network_input(shifted(radiograph, "harsh", "a", SIZE), SIZE)
    assert image.min() == -1
    assert image.max() == pytest.approx(1)
