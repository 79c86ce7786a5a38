"""DICOM: depth, polarity, transfer syntaxes, spacing, and what is refused in which words."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from cxredge import Radiograph, read_radiograph
from cxredge.dicom.reading import radiograph_from_dataset
from cxredge.errors import InputError
from cxredge.preprocessing import network_input

PIXELS = (np.arange(64 * 48).reshape(64, 48) % 4000 + 40).astype(np.uint16)
PIXELS8 = (PIXELS >> 4).astype(np.uint8)


def written(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def shown(radiograph: Radiograph) -> np.ndarray:
    """Grey values in [0, 1] as a person sees them."""
    pixels = radiograph.pixels.astype(np.float64)
    grey = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    return grey if radiograph.polarity == "MONOCHROME2" else 1 - grey


# Depth and polarity


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [
        (PIXELS8, 8),
        (PIXELS >> 2, 10),
        (PIXELS, 12),
        (PIXELS * 16, 16),
        (PIXELS.astype(np.int16) - 2000, 16),
        (PIXELS.astype(np.int16) - 2000, 12),
        ((PIXELS8.astype(int) - 100).astype(np.int8), 8),
    ],
    ids=["8", "10", "12", "16", "signed 16", "signed 12", "signed 8"],
)
def test_stored_values_are_kept(pixels: np.ndarray, bits: int, tmp_path: Path, make_dicom: Any) -> None:
    if bits == 12 and pixels.dtype.kind == "i":
        pixels = np.clip(pixels, -2048, 2047).astype(np.int16)
    read = read_radiograph(written(make_dicom(pixels, bits), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(read.pixels, pixels)


def test_bits_above_the_stored_ones_are_not_part_of_the_pixel(make_dicom: Any) -> None:
    overlay = np.where(np.eye(64, 48, dtype=bool), 0x8000, 0).astype(np.uint16)
    np.testing.assert_array_equal(radiograph_from_dataset(make_dicom(PIXELS | overlay, 12)).pixels, PIXELS)


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_polarity_is_the_photometric_interpretation(polarity: str, make_dicom: Any) -> None:
    assert radiograph_from_dataset(make_dicom(PIXELS, 12, PhotometricInterpretation=polarity)).polarity == polarity


@pytest.mark.parametrize(
    ("polarity", "slope", "expected"),
    [
        ("MONOCHROME2", 2.5, "MONOCHROME2"),
        ("MONOCHROME2", -1, "MONOCHROME1"),
        ("MONOCHROME1", -0.5, "MONOCHROME2"),
        ("MONOCHROME1", 1, "MONOCHROME1"),
    ],
)
def test_negative_rescale_slope_turns_the_polarity(polarity: str, slope: float, expected: str, make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12, PhotometricInterpretation=polarity, RescaleSlope=slope, RescaleIntercept=-1024)
    assert radiograph_from_dataset(dataset).polarity == expected


def test_what_is_shown_is_the_rescaled_image(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12, RescaleSlope=-3, RescaleIntercept=20000)
    rescaled = -3.0 * PIXELS + 20000
    expected = (rescaled - rescaled.min()) / (rescaled.max() - rescaled.min())
    np.testing.assert_allclose(shown(radiograph_from_dataset(dataset)), expected)


def lookup_table(values: np.ndarray, first: int = 0) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, 16]
    item["LUTDescriptor"].VR = "US"
    item.ModalityLUTType = "US"
    item.LUTData = values.astype(np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return item


def test_modality_lut_is_applied(tmp_path: Path, make_dicom: Any) -> None:
    table = (np.arange(4096) ** 2 // 256).astype(np.uint16)[::-1]
    dataset = make_dicom(PIXELS, 12, ModalityLUTSequence=[lookup_table(table)])
    np.testing.assert_array_equal(read_radiograph(written(dataset, tmp_path / "a.dcm")).pixels, table[PIXELS])


def test_damaged_modality_lut_is_refused(make_dicom: Any) -> None:
    with pytest.raises(InputError):
        radiograph_from_dataset(make_dicom(PIXELS, 12, ModalityLUTSequence=[Dataset()]))


# Transfer syntaxes


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian],
    ids=lambda uid: uid.keyword,
)
def test_uncompressed_syntaxes(syntax: str, tmp_path: Path, make_dicom: Any) -> None:
    big = syntax == ExplicitVRBigEndian
    dataset = make_dicom(PIXELS.astype(">u2") if big else PIXELS, 12)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    read = read_radiograph(written(dataset, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(read.pixels, PIXELS)
    assert network_input(read, 16).dtype == np.float32


@pytest.mark.parametrize("pixels", [PIXELS8, PIXELS, PIXELS * 16], ids=["8", "12", "16"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_syntaxes_that_pydicom_writes(syntax: str, pixels: np.ndarray, tmp_path: Path, make_dicom: Any) -> None:
    dataset = make_dicom(pixels, 12 if pixels is PIXELS else None)
    dataset.compress(syntax)
    np.testing.assert_array_equal(read_radiograph(written(dataset, tmp_path / "a.dcm")).pixels, pixels)


def transcoded(source: Path, syntax: str) -> Path:
    """The file again, in a transfer syntax of GDCM's."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    target = source.with_name(f"{syntax}.dcm")
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


@pytest.mark.parametrize("pixels", [PIXELS8, PIXELS, PIXELS * 16], ids=["8", "12", "16"])
@pytest.mark.parametrize(
    "syntax", ["JPEGLosslessProcess14_1", "JPEGLosslessProcess14", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"]
)
def test_lossless_syntaxes_that_another_toolkit_writes(
    syntax: str, pixels: np.ndarray, tmp_path: Path, make_dicom: Any
) -> None:
    plain = written(make_dicom(pixels, 12 if pixels is PIXELS else None), tmp_path / "plain.dcm")
    path = transcoded(plain, syntax)
    assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_radiograph(path).pixels, pixels)


def test_lossy_baseline_jpeg_is_read_within_its_compression_error(tmp_path: Path, make_dicom: Any) -> None:
    smooth = np.tile(np.arange(48, dtype=np.uint8) * 4, (64, 1))
    path = transcoded(written(make_dicom(smooth), tmp_path / "plain.dcm"), "JPEGBaselineProcess1")
    assert np.abs(read_radiograph(path).pixels.astype(int) - smooth).max() <= 8


def test_unknown_transfer_syntax_is_refused_by_name(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    with pytest.raises(InputError, match=r"cannot be decoded \(MPEG2"):
        radiograph_from_dataset(dataset)


def test_dataset_without_a_transfer_syntax_is_refused(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    del dataset.file_meta
    with pytest.raises(InputError, match="unknown transfer syntax"):
        radiograph_from_dataset(dataset)


# Spacing and identity


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"NominalScannedPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.4, 0.3]}, (0.2, 0.1)),
        ({"PixelSpacing": [0.4, 0.3], "NominalScannedPixelSpacing": [0.6, 0.5]}, (0.4, 0.3)),
        ({"ImagerPixelSpacing": [0, 0.1], "PixelSpacing": [0.4, 0.3]}, (0.4, 0.3)),
        ({"ImagerPixelSpacing": [-0.2, 0.1]}, None),
        ({"ImagerPixelSpacing": None}, None),
    ],
    ids=["none", "imager", "pixel", "scanned", "imager first", "pixel before scanned", "zero", "negative", "empty"],
)
def test_spacing(attributes: dict[str, Any], expected: tuple[float, float] | None, make_dicom: Any) -> None:
    assert radiograph_from_dataset(make_dicom(PIXELS, 12, **attributes)).spacing == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "raw", [b"0.2 ", b"nan\\nan ", b"inf\\0.1 ", b"0.1\\0.2\\0.3 ", b"wide\\high ", b"\\ ", b"0.1\\ "]
)
def test_spacing_that_is_not_two_positive_numbers_counts_as_unknown(
    raw: bytes, tmp_path: Path, make_dicom: Any
) -> None:
    path = written(make_dicom(PIXELS, 12, PixelSpacing=[0.125, 0.125]), tmp_path / "a.dcm")
    good = b"0.125\\0.125 "
    content = path.read_bytes()
    assert content.count(good) == 1
    path.write_bytes(content.replace(good, raw.ljust(len(good))))
    read = read_radiograph(path)
    assert read.spacing is None
    np.testing.assert_array_equal(read.pixels, PIXELS)


def test_identity_is_the_sop_instance_uid(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    assert radiograph_from_dataset(dataset).identity == dataset.SOPInstanceUID
    del dataset.SOPInstanceUID
    assert radiograph_from_dataset(dataset).identity is None


# Refusals


def test_object_without_an_image_is_refused(tmp_path: Path, make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    del dataset.PixelData
    with pytest.raises(InputError, match="no image"):
        read_radiograph(written(dataset, tmp_path / "report.dcm"))


def test_several_frames_are_refused_with_their_number(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12, NumberOfFrames=3, PixelData=PIXELS.tobytes() * 3)
    with pytest.raises(InputError, match="3 frames"):
        radiograph_from_dataset(dataset)


def test_one_frame_that_is_counted_is_fine(make_dicom: Any) -> None:
    np.testing.assert_array_equal(radiograph_from_dataset(make_dicom(PIXELS, 12, NumberOfFrames=1)).pixels, PIXELS)


def colour_dataset(make_dicom: Any, pixels: np.ndarray, **attributes: Any) -> Dataset:
    settings = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    return make_dicom(pixels, **{**settings, **attributes})


def test_grey_rgb_is_read_as_grey(make_dicom: Any) -> None:
    grey = np.repeat(PIXELS8[..., None], 3, axis=2)
    read = radiograph_from_dataset(colour_dataset(make_dicom, grey))
    np.testing.assert_array_equal(read.pixels, PIXELS8)
    planes = np.ascontiguousarray(np.moveaxis(grey, 2, 0))
    dataset = colour_dataset(make_dicom, grey, PlanarConfiguration=1, PixelData=planes.tobytes())
    np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels, PIXELS8)


def test_coloured_rgb_is_refused(make_dicom: Any) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    with pytest.raises(InputError, match="colour"):
        radiograph_from_dataset(colour_dataset(make_dicom, photo))


def test_palette_colour_indices_are_not_taken_for_grey_values(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS8, PhotometricInterpretation="PALETTE COLOR")
    for colour, values in (("Red", np.arange(256)[::-1]), ("Green", np.arange(256)), ("Blue", np.zeros(256))):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", values.astype(np.uint8).tobytes())
    with pytest.raises(InputError):
        radiograph_from_dataset(dataset)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RescaleSlope", ["1", "2"]), ("NumberOfFrames", ["1", "1"]), ("PhotometricInterpretation", None), ("Rows", None)],
)
def test_attributes_that_make_no_sense_are_no_crash(keyword: str, value: Any, make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    setattr(dataset, keyword, value)
    with suppress(InputError):
        assert radiograph_from_dataset(dataset).shape == (64, 48)


def test_too_few_pixels_are_refused(tmp_path: Path, make_dicom: Any) -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        radiograph_from_dataset(make_dicom(PIXELS, 12, PixelData=PIXELS[:32].tobytes()))
    path = written(make_dicom(PIXELS, 12), tmp_path / "a.dcm")
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(InputError):
            read_radiograph(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_a_compressed_file_that_was_cut_off_is_not_called_an_object_without_an_image(
    syntax: str, tmp_path: Path, make_dicom: Any
) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(syntax)
    path = written(dataset, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"damaged|cut off|truncated|incomplete|cannot be decoded"):
        read_radiograph(path)


@pytest.mark.filterwarnings("ignore")
def test_messages_are_one_line_and_name_no_patient(tmp_path: Path, make_dicom: Any) -> None:
    compressed = make_dicom(PIXELS, 12)
    compressed.compress(RLELossless)
    content = written(compressed, tmp_path / "rle.dcm").read_bytes()
    cut = content[: len(content) * 3 // 4]
    broken = make_dicom(PIXELS, 12, NumberOfFrames=2)
    short = make_dicom(PIXELS, 12, PixelData=b"\0\0")
    (tmp_path / "cut.dcm").write_bytes(cut)
    written(broken, tmp_path / "frames.dcm")
    written(short, tmp_path / "short.dcm")
    for name in ("cut.dcm", "frames.dcm", "short.dcm"):
        with pytest.raises(InputError) as raised:
            read_radiograph(tmp_path / name)
        message = str(raised.value)
        assert "\n" not in message, name
        assert "Traceback" not in message
        assert "Secret" not in message
        assert "4711" not in message
