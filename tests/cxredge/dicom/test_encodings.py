"""The same picture in every encoding that DICOM has for it: the same network input and the same mask, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from cxredge import Radiograph, Segmenter, read_radiograph
from cxredge.dicom.reading import radiograph_from_dataset
from cxredge.errors import InputError
from cxredge.preprocessing import network_input

Make = Callable[..., Dataset]
GDCM_SYNTAXES = (
    "JPEGLosslessProcess14_1",
    "JPEGLosslessProcess14",
    "JPEGLSLossless",
    "JPEG2000Lossless",
    "RLELossless",
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """``(96, 80)`` 8-bit grey with dark ellipses, whose values use the full range."""
    row, column = np.mgrid[:96, :80]
    pixels = (150 + column + row // 4).astype(np.uint8)
    for middle in (24, 56):
        inside = ((column - middle) / 11) ** 2 + ((row - 48) / 30) ** 2 < 1
        pixels[inside] = (20 + row // 2)[inside]
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return pixels


def plain(picture: np.ndarray, make: Make, **attributes: Any) -> Dataset:
    return make(picture.astype(np.uint16) * 16, 12, **attributes)


def colour(picture: np.ndarray, make: Make, **attributes: Any) -> Dataset:
    settings = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    return make(np.repeat(picture[..., None], 3, axis=2), **{**settings, **attributes})


def chroma_free(picture: np.ndarray, make: Make) -> Dataset:
    ybr = np.stack([picture, np.full_like(picture, 128), np.full_like(picture, 128)], axis=2)
    return make(ybr, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)


def subsampled(picture: np.ndarray, make: Make) -> Dataset:
    pairs = picture.reshape(len(picture), -1, 2)
    samples = np.concatenate([pairs, np.full_like(pairs, 128)], axis=2)
    return make(
        picture,
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422",
        PlanarConfiguration=0,
        PixelData=samples.tobytes(),
    )


def palette(picture: np.ndarray, make: Make, bits: int) -> Dataset:
    dataset = make(255 - picture, PhotometricInterpretation="PALETTE COLOR")
    entries = np.arange(256)[::-1] * (1 if bits == 8 else 256)
    for channel in ("Red", "Green", "Blue"):
        setattr(dataset, f"{channel}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(dataset, f"{channel}PaletteColorLookupTableData", entries.astype(f"<u{bits // 8}").tobytes())
    return dataset


def overlaid(picture: np.ndarray, make: Make) -> Dataset:
    """With an overlay in an unused high bit, as old files have it, and another in a plane of its own."""
    drawing = np.eye(*picture.shape, dtype=np.uint16)
    dataset = make(picture.astype(np.uint16) * 16 | drawing << 15 | drawing << 13, 12)
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 15)
    dataset.add_new(0x60003000, "OW", pack_bits(drawing.astype(np.uint8).ravel()))
    return dataset


def high_bits(picture: np.ndarray, make: Make, *, signed: bool) -> Dataset:
    """Stored in the upper twelve of sixteen bits, with rubbish below."""
    words = picture.astype(np.int32) * 16 - (2048 if signed else 0)
    words = (words << 4) | np.arange(picture.size).reshape(picture.shape) % 16
    return make(words.astype(np.int16 if signed else np.uint16), 12, HighBit=15)


DATASETS: dict[str, Callable[[np.ndarray, Make], Dataset]] = {
    "8 bits": lambda p, make: make(p),
    "16 bits": lambda p, make: make(p.astype(np.uint16) * 256),
    "10 of 16 bits": lambda p, make: make(p.astype(np.uint16) * 4, 10),
    "32 bits": lambda p, make: make(p.astype(np.uint32) * 65536),
    "signed": lambda p, make: make(p.astype(np.int16) - 128, 12),
    "signed 8 bits": lambda p, make: make((p.astype(np.int16) - 128).astype(np.int8)),
    "MONOCHROME1": lambda p, make: make(255 - p, PhotometricInterpretation="MONOCHROME1"),
    "INVERSE": lambda p, make: make(255 - p, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "IDENTITY": lambda p, make: make(p, PresentationLUTShape="IDENTITY"),
    "rescaled": lambda p, make: plain(p, make, RescaleSlope="0.1", RescaleIntercept="-1024.3"),
    "falling": lambda p, make: make(255 - p, RescaleSlope=-3, RescaleIntercept=9),
    "wide window": lambda p, make: plain(p, make, WindowCenter=2048, WindowWidth=4096),
    "RGB": colour,
    "RGB in planes": lambda p, make: colour(p, make, PlanarConfiguration=1, PixelData=p.tobytes() * 3),
    "RGB of 16 bits": lambda p, make: make(
        np.repeat(p[..., None].astype(np.uint16) * 16, 3, axis=2),
        12,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
    ),
    "YBR_FULL": chroma_free,
    "YBR_FULL_422": subsampled,
    "palette": lambda p, make: palette(p, make, 8),
    "palette of 16 bits": lambda p, make: palette(p, make, 16),
    "overlay bits": overlaid,
    "high bit": lambda p, make: high_bits(p, make, signed=False),
    "signed high bit": lambda p, make: high_bits(p, make, signed=True),
}


def require_same(path: Path, picture: np.ndarray, segmenter: Segmenter) -> None:
    expected = network_input(Radiograph(picture), 64)
    np.testing.assert_array_equal(network_input(read_radiograph(path), 64), expected)
    mask = segmenter(picture).mask
    assert 0.1 < mask.mean() < 0.9
    np.testing.assert_array_equal(segmenter(path).mask, mask)


@pytest.mark.parametrize("name", DATASETS)
def test_every_representation_of_a_picture(
    name: str, picture: np.ndarray, make_dicom: Make, segmenter: Segmenter, tmp_path: Path
) -> None:
    path = tmp_path / "a.dcm"
    DATASETS[name](picture, make_dicom).save_as(path, enforce_file_format=True)
    require_same(path, picture, segmenter)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.keyword,
)
def test_every_uncompressed_syntax(
    syntax: str, picture: np.ndarray, make_dicom: Make, segmenter: Segmenter, tmp_path: Path
) -> None:
    dataset = plain(picture, make_dicom)
    dataset["PixelData"].VR = "OW"
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = (picture.astype(">u2") * 16).astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    require_same(tmp_path / "a.dcm", picture, segmenter)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.keyword)
def test_every_syntax_that_pydicom_writes(
    syntax: str, signed: bool, picture: np.ndarray, make_dicom: Make, segmenter: Segmenter, tmp_path: Path
) -> None:
    pixels = picture.astype(np.int16) * 16 - 2048 if signed else picture.astype(np.uint16) * 16
    dataset = make_dicom(pixels, 12)
    dataset.compress(syntax)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    require_same(tmp_path / "a.dcm", picture, segmenter)


@pytest.mark.parametrize("syntax", GDCM_SYNTAXES)
def test_every_syntax_that_gdcm_writes(
    syntax: str, picture: np.ndarray, make_dicom: Make, segmenter: Segmenter, tmp_path: Path
) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    plain(picture, make_dicom).save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    require_same(tmp_path / "a.dcm", picture, segmenter)


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
@pytest.mark.parametrize("name", ["IM0001", "a.dcm"])
def test_a_file_without_preamble_and_meta_information(
    name: str, implicit: bool, picture: np.ndarray, make_dicom: Make, segmenter: Segmenter, tmp_path: Path
) -> None:
    dataset = plain(picture, make_dicom)
    dataset["PixelData"].VR = "OW"
    del dataset.file_meta
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=implicit, little_endian=True)
    (tmp_path / name).write_bytes(buffer.getvalue())
    require_same(tmp_path / name, picture, segmenter)


def test_a_compressed_file_without_meta_information_is_refused(
    picture: np.ndarray, make_dicom: Make, tmp_path: Path
) -> None:
    dataset = plain(picture, make_dicom)
    dataset.compress(RLELossless)
    del dataset.file_meta
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    (tmp_path / "IM1").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="unknown transfer syntax"):
        read_radiograph(tmp_path / "IM1")


# What cannot be read says why


def test_a_high_bit_that_the_pixels_contradict_is_not_believed(picture: np.ndarray, make_dicom: Make) -> None:
    pixels = picture.astype(np.uint16) * 15
    read = radiograph_from_dataset(make_dicom(pixels, 12, HighBit=15))
    np.testing.assert_array_equal(read.pixels, pixels)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, "3 samples a pixel|cannot be decoded|need"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV"),
        ({"PhotometricInterpretation": None}, "no photometric interpretation"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "YBR_PARTIAL_420"),
        ({"BitsStored": 4}, "4 of 8 bits"),
        ({"BitsStored": 12}, "12 of 8 bits"),
        ({"NumberOfFrames": -3}, "holds -3 frames"),
        ({"Rows": 0}, "size of 80x0"),
    ],
)
def test_an_image_that_makes_no_sense_is_refused_with_the_reason(
    attributes: dict[str, Any], reason: str, picture: np.ndarray, make_dicom: Make
) -> None:
    with pytest.raises(InputError, match=reason):
        radiograph_from_dataset(make_dicom(picture, **attributes))


@pytest.mark.filterwarnings("ignore")
def test_more_pixel_data_than_one_image_is_refused(picture: np.ndarray, make_dicom: Make) -> None:
    with pytest.raises(InputError, match="one image has 7680"):
        radiograph_from_dataset(make_dicom(picture, PixelData=picture.tobytes() * 2))
    padded = make_dicom(picture, PixelData=picture.tobytes() + bytes(64))
    np.testing.assert_array_equal(radiograph_from_dataset(padded).pixels, picture)


def test_floating_pixels_are_refused_for_what_they_are(picture: np.ndarray, make_dicom: Make) -> None:
    dataset = make_dicom(picture, FloatPixelData=picture.astype(np.float32).tobytes())
    del dataset.PixelData
    with pytest.raises(InputError, match="parametric map"):
        radiograph_from_dataset(dataset)


def test_a_plugin_that_is_missing_is_named(
    picture: np.ndarray, make_dicom: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels import get_decoder

    dataset = plain(picture, make_dicom)
    dataset.compress(JPEG2000Lossless)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless  # its header is that of JPEG 2000
    monkeypatch.setattr(get_decoder(HTJ2KLossless), "_available", {})
    missing = {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.0")}
    monkeypatch.setattr(get_decoder(HTJ2KLossless), "_unavailable", missing)
    with pytest.raises(InputError, match="pip install pylibjpeg pylibjpeg-openjpeg"):
        radiograph_from_dataset(dataset)


@pytest.mark.parametrize("representation", [0, 1])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 8), (16, 8), (16, 12), (16, 16)])
def test_a_jpeg_of_eight_bits_may_say_that_it_has_more_or_is_signed(
    allocated: int, stored: int, representation: int, picture: np.ndarray, make_dicom: Make
) -> None:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    dataset = make_dicom(picture, BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1)
    dataset.PixelRepresentation = representation
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([buffer.getvalue()])
    read = radiograph_from_dataset(dataset).pixels
    np.testing.assert_array_equal(read, np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("missing", ["Descriptor", "Data", "half of the data"])
def test_a_palette_that_is_not_whole_is_refused(missing: str, picture: np.ndarray, make_dicom: Make) -> None:
    dataset = make_dicom(picture, PhotometricInterpretation="PALETTE COLOR")
    for colour_name in ("Red", "Green", "Blue"):
        keyword = f"{colour_name}PaletteColorLookupTable"
        setattr(dataset, f"{keyword}Descriptor", [256, 0, 8])
        setattr(dataset, f"{keyword}Data", bytes(range(256)))
    np.testing.assert_array_equal(radiograph_from_dataset(dataset).pixels, picture)
    if missing == "half of the data":
        dataset.RedPaletteColorLookupTableData = bytes(range(101))
    else:
        delattr(dataset, f"RedPaletteColorLookupTable{missing}")
    with pytest.raises(InputError, match="no palette for its palette colours, or a damaged one"):
        radiograph_from_dataset(dataset)


JPEG_OF_TWELVE_BITS = "JPGExtended.dcm"
"""Of pydicom's own test data."""


def test_jpeg_of_twelve_bits_has_the_values_that_other_decoders_give_it() -> None:
    read = read_radiograph(get_testdata_file(JPEG_OF_TWELVE_BITS))
    assert (read.pixels.dtype, read.shape, int(read.pixels.max())) == (np.uint16, (1024, 256), 264)
    assert [int(read.pixels[place]) for place in ((420, 140), (230, 120))] == [244, 95]  # pydicom's, of libjpeg


def test_jpeg_of_twelve_bits_is_the_picture_that_was_compressed(tmp_path: Path) -> None:
    corpus = Path(__file__).parents[2] / "corpus"
    deep = network_input(read_radiograph(corpus / "jpeg-extended.dcm"), 32)
    np.testing.assert_allclose(deep, network_input(read_radiograph(corpus / "explicit.dcm"), 32), atol=0.01)


def test_jpeg_of_twelve_bits_names_the_plugin_that_it_needs_where_gdcm_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = get_decoder(JPEGExtended12Bit)
    assert "gdcm" in decoder.available_plugins
    monkeypatch.delitem(decoder._available, "gdcm")
    monkeypatch.setitem(decoder._unavailable, "gdcm", ("gdcm>=3.0.10",))
    with pytest.raises(InputError, match=r"JPEG Extended.*pip install pylibjpeg pylibjpeg-libjpeg"):
        read_radiograph(get_testdata_file(JPEG_OF_TWELVE_BITS))


def test_a_syntax_that_pydicom_does_not_know_is_named(picture: np.ndarray, make_dicom: Make) -> None:
    dataset = plain(picture, make_dicom)
    dataset.compress(RLELossless)
    for uid, name in (
        ("1.2.840.10008.1.2.4.110", r"(4\.110|JPEG XL Lossless)"),
        ("1.2.840.113619.5.2", "1.2.840.113619.5.2"),
    ):
        dataset.file_meta.TransferSyntaxUID = uid
        with pytest.raises(InputError, match=name):
            radiograph_from_dataset(dataset)
