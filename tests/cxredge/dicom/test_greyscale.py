"""Tables, windows and presentation: what they do to the network's input, and what they cannot do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from cxredge import Radiograph
from cxredge.dicom.greyscale import LARGEST_CUT
from cxredge.dicom.reading import radiograph_from_dataset
from cxredge.errors import InputError
from cxredge.preprocessing import network_input

SIZE = 64


def seen(dataset: Dataset) -> np.ndarray:
    return network_input(radiograph_from_dataset(dataset), SIZE)


def table(values: np.ndarray, first: int = 0, bits: int = 16) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values) % 65536, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = values.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.fixture(scope="session")
def marked(phantom: np.ndarray) -> np.ndarray:
    """A radiograph in an eighth of the 12-bit range, with a marker and dead pixels at its ends: 1 % of the image."""
    pixels = (1800 + phantom // 8).astype(np.uint16)
    pixels[:20, :8] = 4095
    pixels[-1] = 0
    return pixels


# Windows


def test_a_window_takes_the_normalisation_from_a_few_pixels_far_outside(
    marked: np.ndarray, phantom: np.ndarray, make_dicom: Any
) -> None:
    low, high = 1800, 1800 + int(phantom.max()) // 8
    windowed = seen(make_dicom(marked, 12, WindowCenter=(low + high + 1) / 2, WindowWidth=high - low + 1))
    inside = np.s_[10:-4, 8:]
    expected = network_input(Radiograph((phantom // 8).astype(np.uint16)), SIZE)
    np.testing.assert_allclose(windowed[inside], expected[inside], atol=0.03)
    assert np.abs(seen(make_dicom(marked, 12))[inside] - expected[inside]).max() > 0.5


def test_limits_are_those_of_the_function(make_dicom: Any) -> None:
    pixels = np.tile(np.arange(4096, dtype=np.uint16), (40, 1))
    for function, limits in (
        ("LINEAR", (1024, 3071)),
        ("LINEAR_EXACT", (1024, 3072)),
        ("SIGMOID", (0, 4095)),
        (None, (1024, 3071)),
    ):
        dataset = make_dicom(pixels, 12, WindowCenter=2048, WindowWidth=2048, VOILUTFunction=function)
        read = radiograph_from_dataset(dataset)
        tenth = int(LARGEST_CUT * 4096)
        expected = (min(limits[0], tenth), max(limits[1], 4095 - tenth))
        found = read.value_range or (0, 4095)
        assert np.abs(np.subtract(found, expected)).max() <= 1, function


@pytest.mark.parametrize(("centre", "width"), [(2000, 1), (2000, 3), (900, 200), (3900, 100), (1e4, 1e5), (-500, 100)])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_no_window_cuts_off_more_than_its_share(
    centre: float, width: float, function: str, phantom: np.ndarray, make_dicom: Any
) -> None:
    dataset = make_dicom(phantom, 12, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    low, high = radiograph_from_dataset(dataset).value_range or (phantom.min(), phantom.max())
    assert (phantom < low).mean() <= LARGEST_CUT
    assert (phantom > high).mean() <= LARGEST_CUT


@pytest.mark.parametrize(
    ("centre", "width"), [(2048, 4096), (0, 65536), (-9000, 100), (60000, 10), (2048, 0), (2048, -5)]
)
def test_a_window_that_is_wider_or_beside_the_pixels_or_none_changes_nothing(
    centre: float, width: float, phantom: np.ndarray, make_dicom: Any
) -> None:
    read = radiograph_from_dataset(make_dicom(phantom, 12, WindowCenter=centre, WindowWidth=width))
    assert read.value_range is None
    np.testing.assert_array_equal(read.pixels, phantom)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 2000},
        {"WindowCenter": [2000, 500], "WindowWidth": []},
        {"WindowCenter": "", "WindowWidth": ""},
        {"VOILUTSequence": [Dataset()]},
        {"VOILUTSequence": []},
    ],
)
def test_a_window_that_makes_no_sense_is_passed_over(
    window: dict[str, Any], phantom: np.ndarray, make_dicom: Any
) -> None:
    np.testing.assert_array_equal(seen(make_dicom(phantom, 12, **window)), seen(make_dicom(phantom, 12)))


def test_the_first_of_several_windows_counts(marked: np.ndarray, make_dicom: Any) -> None:
    first = seen(make_dicom(marked, 12, WindowCenter=2050, WindowWidth=520))
    both = seen(make_dicom(marked, 12, WindowCenter=[2050, 100], WindowWidth=[520, 10]))
    np.testing.assert_array_equal(first, both)


@given(
    slope=st.sampled_from([1, -1, 0.1, -0.1, 2.5, 1e-3, 7, 1 / 3]),
    intercept=st.sampled_from([0, -1024, 0.1, 1e4]),
    centre=st.integers(1900, 2300),
    width=st.integers(1, 900),
    exact=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_one_window_in_the_units_of_any_rescale_is_the_same_window(
    slope: float, intercept: float, centre: int, width: int, exact: bool, marked: np.ndarray, make_dicom: Any
) -> None:
    """Linear-exact, since the half a unit of LINEAR is one of output values: another window in another unit."""
    function = "LINEAR_EXACT" if exact else "SIGMOID"
    plain = make_dicom(marked, 12, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    rescaled = make_dicom(
        marked, 12, WindowCenter=0, WindowWidth=1, VOILUTFunction=function, RescaleSlope=0, RescaleIntercept=0
    )
    for keyword, value in (
        ("RescaleSlope", slope),
        ("RescaleIntercept", intercept),
        ("WindowCenter", centre * slope + intercept),
        ("WindowWidth", width * abs(slope)),
    ):
        rescaled[keyword].VR = "FD"  # a double, without the 16 characters of a decimal string
        rescaled[keyword].value = value
    if slope < 0:
        rescaled.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(seen(rescaled), seen(plain))


def test_a_window_on_inverted_storage_is_the_same_window(marked: np.ndarray, make_dicom: Any) -> None:
    plain = make_dicom(marked, 12, WindowCenter=2051.5, WindowWidth=511)
    inverted = make_dicom(
        4095 - marked, 12, WindowCenter=4095 - 2051.5 + 1, WindowWidth=511, PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_array_equal(seen(inverted), seen(plain))


# Tables


def test_a_voi_table_is_applied(phantom: np.ndarray, make_dicom: Any) -> None:
    curve = np.rint(np.sqrt(np.arange(4096) / 4095) * 65535)
    dataset = make_dicom(phantom, 12, VOILUTSequence=[table(curve)])
    np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels, curve.astype(np.uint16)[phantom])


def test_a_voi_table_works_on_rescaled_values(phantom: np.ndarray, make_dicom: Any) -> None:
    curve = np.rint(np.sqrt(np.arange(4096) / 4095) * 65535)
    plain = make_dicom(phantom, 12, VOILUTSequence=[table(curve)])
    moved = make_dicom(phantom, 12, RescaleSlope=1, RescaleIntercept=-1000, VOILUTSequence=[table(curve, -1000)])
    turned = make_dicom(4095 - phantom, 12, RescaleSlope=-1, RescaleIntercept=4095, VOILUTSequence=[table(curve)])
    for dataset in (moved, turned):
        np.testing.assert_array_equal(seen(dataset), seen(plain))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_tables_of_every_depth_are_read(bits: int, phantom: np.ndarray, make_dicom: Any) -> None:
    curve = np.arange(4096) >> (12 - bits) if bits < 12 else np.arange(4096) << (bits - 12)
    dataset = make_dicom(phantom, 12, ModalityLUTSequence=[table(curve, bits=bits)])
    np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels, curve[phantom])


def test_an_eight_bit_table_on_deeper_pixels_does_not_overflow(phantom: np.ndarray, make_dicom: Any) -> None:
    curve = np.arange(4096) >> 4
    for packed in (False, True):
        item = table(curve, bits=8)
        if packed:
            item.LUTData = curve.astype(np.uint8).tobytes()
        dataset = make_dicom(phantom, 12, VOILUTSequence=[item])
        np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels, phantom >> 4)


def test_values_beyond_a_table_take_its_ends(make_dicom: Any) -> None:
    pixels = np.tile(np.arange(-100, 100, dtype=np.int16), (40, 1))
    curve = np.arange(500, 700)
    dataset = make_dicom(pixels, 16, ModalityLUTSequence=[table(curve[50:150], first=-50)])
    expected = np.clip(np.arange(500, 700), 550, 649)
    np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels[0], expected)


def test_a_table_of_65536_entries_writes_their_number_as_0(phantom: np.ndarray, make_dicom: Any) -> None:
    dataset = make_dicom(phantom, 12, ModalityLUTSequence=[table(np.arange(65536)[::-1])])
    np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels, 65535 - phantom)


@pytest.mark.parametrize("rising", [True, False])
def test_a_table_that_flattens_the_image_is_passed_over_but_tells_which_end_is_white(
    rising: bool, phantom: np.ndarray, make_dicom: Any
) -> None:
    step = np.where(np.arange(4096) < int(np.median(phantom)), 0, 65535)
    dataset = make_dicom(phantom, 12, VOILUTSequence=[table(step if rising else step[::-1])])
    sign = 1 if rising else -1
    np.testing.assert_allclose(seen(dataset), sign * network_input(Radiograph(phantom), SIZE), atol=1e-5)


def test_a_table_of_one_value_is_passed_over(phantom: np.ndarray, make_dicom: Any) -> None:
    dataset = make_dicom(phantom, 12, VOILUTSequence=[table(np.full(4096, 7))])
    np.testing.assert_array_equal(seen(dataset), network_input(Radiograph(phantom), SIZE))


@pytest.mark.parametrize("descriptor", [[4096, 0], [4096, 0, 40], [5000, 0, 16], None])
def test_a_damaged_modality_table_is_refused(descriptor: Any, phantom: np.ndarray, make_dicom: Any) -> None:
    item = table(np.arange(4096))
    item.LUTDescriptor = descriptor
    with pytest.raises(InputError, match="lookup table"):
        radiograph_from_dataset(make_dicom(phantom, 12, ModalityLUTSequence=[item]))


# Presentation


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "conflict"),
    [
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME2", "INVERSE", True, True),
        ("MONOCHROME2", "SOMETHING", False, False),
    ],
)
def test_presentation_inverts_once_at_most(
    photometric: str, shape: str | None, inverted: bool, conflict: bool, phantom: np.ndarray, make_dicom: Any
) -> None:
    dataset = make_dicom(phantom, 12, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    read = radiograph_from_dataset(dataset)
    assert read.polarity == ("MONOCHROME1" if inverted else "MONOCHROME2")
    assert ("polarity_conflict" in read.notes) == conflict


@pytest.mark.parametrize(("keyword", "value"), [("RescaleSlope", "nan"), ("RescaleIntercept", "inf")])
@pytest.mark.filterwarnings("ignore")
def test_a_rescale_that_is_no_number_is_refused(keyword: str, value: str, phantom: np.ndarray, make_dicom: Any) -> None:
    with pytest.raises(InputError, match="rescale"):
        radiograph_from_dataset(make_dicom(phantom, 12, **{keyword: value}))


def test_a_rescale_slope_of_zero_counts_as_none(phantom: np.ndarray, make_dicom: Any) -> None:
    dataset = make_dicom(phantom, 12, RescaleSlope=0, RescaleIntercept=5)
    np.testing.assert_array_equal(seen(dataset), network_input(Radiograph(phantom), SIZE))
