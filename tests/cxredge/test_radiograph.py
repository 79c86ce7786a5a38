"""What a radiograph is, and which reader a file goes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxredge import CxredgeError, Radiograph, read_radiograph
from cxredge.errors import InputError
from cxredge.radiograph import MINIMUM_SIDE, is_dicom, require_finite

ANY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def test_a_plain_array_shows_its_largest_value_white_and_has_no_spacing() -> None:
    radiograph = Radiograph(ANY)
    assert radiograph.polarity == "MONOCHROME2"
    assert radiograph.spacing is None
    assert radiograph.identity is None
    assert radiograph.pixel_area_mm2 is None


def test_shape_is_height_and_width() -> None:
    assert Radiograph(np.zeros((40, 50))).shape == (40, 50)


def test_pixel_area_is_the_product_of_the_spacings() -> None:
    assert Radiograph(ANY, spacing=(0.5, 0.2)).pixel_area_mm2 == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(64,), (64, 64, 3), (1, 64, 64), ()])
def test_anything_but_two_dimensions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="two dimensions"):
        Radiograph(np.zeros(shape))


@pytest.mark.parametrize("dtype", [bool, np.complex64, object, "U3", "datetime64[s]", [("a", "u1")]])
def test_pixels_that_are_not_numbers_are_refused(dtype: object) -> None:
    with pytest.raises(InputError, match="integers or floating"):
        Radiograph(np.zeros((64, 64), dtype))


@pytest.mark.parametrize("shape", [(MINIMUM_SIDE - 1, 500), (500, MINIMUM_SIDE - 1), (1, 1), (0, 64)])
def test_an_image_that_is_too_small_is_refused_with_its_size(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[0]} pixels is too small"):
        Radiograph(np.zeros(shape))


def test_the_smallest_allowed_image_is_accepted() -> None:
    assert Radiograph(np.zeros((MINIMUM_SIDE, MINIMUM_SIDE))).shape == (MINIMUM_SIDE, MINIMUM_SIDE)


def test_a_missing_file_is_an_input_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_radiograph(tmp_path / "absent.png")


def test_a_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_radiograph(tmp_path)


def test_an_empty_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(InputError, match="empty"):
        read_radiograph(tmp_path / "empty.dcm")


def test_paths_may_be_text(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ANY)
    np.testing.assert_array_equal(read_radiograph(str(tmp_path / "a.npy")).pixels, ANY)


def test_an_npy_file_named_png_is_read_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "array.png"
    with path.open("wb") as file:
        np.save(file, ANY)
    np.testing.assert_array_equal(read_radiograph(path).pixels, ANY)


def test_a_png_named_npy_is_read_as_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(ANY).save(tmp_path / "image.npy", "PNG")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "image.npy").pixels, ANY)


def test_a_png_named_dcm_is_read_as_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(ANY).save(tmp_path / "image.dcm", "PNG")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "image.dcm").pixels, ANY)


def test_a_dicom_file_is_read_under_any_name(tmp_path: Path, make_dicom) -> None:
    for name in ("1.2.840.99", "IM000001", "scan.png"):
        make_dicom(ANY).save_as(tmp_path / name, enforce_file_format=True)
        np.testing.assert_array_equal(read_radiograph(tmp_path / name).pixels, ANY)


def test_a_text_file_named_dcm_is_refused_as_not_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.dcm").write_text("nothing to see " * 20)
    with pytest.raises(InputError, match="not a DICOM file"):
        read_radiograph(tmp_path / "notes.dcm")


def test_a_text_file_named_png_is_refused_as_no_image(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("nothing to see")
    with pytest.raises(InputError, match="not an image"):
        read_radiograph(tmp_path / "notes.png")


def test_the_dicom_prefix_stands_after_the_preamble() -> None:
    assert is_dicom(bytes(128) + b"DICM")
    assert not is_dicom(b"DICM" + bytes(128))
    assert not is_dicom(bytes(10))


def test_nan_and_infinity_are_refused_and_integers_are_never_scanned() -> None:
    for value in (np.nan, np.inf, -np.inf):
        pixels = np.zeros((64, 64))
        pixels[3, 4] = value
        with pytest.raises(InputError, match="NaN or infinite"):
            require_finite(pixels)
    assert require_finite(ANY) is ANY


def damaged(content: bytes, number: int) -> list[bytes]:
    """Cuts and byte changes of ``content``, most of them in its first kilobyte, where the headers are."""
    rng = np.random.default_rng(0)
    cuts = [content[: int(cut)] for cut in rng.integers(1, len(content), number // 4)]
    changes = []
    for _ in range(number - len(cuts)):
        changed = bytearray(content)
        for place in rng.integers(0, min(len(content), int(rng.choice([128, 1024, 1 << 20]))), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        changes.append(bytes(changed))
    return cuts + changes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "palette.png", "jpg", "tif", "lzw.tif", "npy", "dcm", "rle.dcm", "j2k.dcm"])
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(kind: str, tmp_path: Path, make_dicom) -> None:
    from pydicom.uid import JPEG2000Lossless, RLELossless

    path = tmp_path / f"good.{kind}"
    pixels = (ANY // 16).astype(np.uint8)
    if kind == "npy":
        np.save(path, pixels)
    elif kind.endswith("dcm"):
        dataset = make_dicom(pixels, ImagerPixelSpacing=[0.1, 0.1], RescaleSlope=1, NumberOfFrames=1)
        if kind != "dcm":
            dataset.compress(RLELossless if kind == "rle.dcm" else JPEG2000Lossless)
        dataset.save_as(path, enforce_file_format=True)
    else:
        image = Image.fromarray(pixels)
        image = image.convert("RGB").quantize(32) if kind.startswith("palette") else image
        image.save(path, compression="tiff_lzw" if kind == "lzw.tif" else None)
    assert read_radiograph(path).shape == (64, 64)
    bad = tmp_path / "bad"
    for content in damaged(path.read_bytes(), 250):
        bad.write_bytes(content)
        message = ""
        try:
            read_radiograph(bad)
        except CxredgeError as error:
            message = str(error)
        assert "\n" not in message, "the message of a failed input is one line of the report"
