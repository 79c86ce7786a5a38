"""Writes the images of the fuzz tests' corpus: a small made radiograph in every encoding that cxredge reads."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path
from typing import Any

import cv2
import gdcm
import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

FOLDER = Path(__file__).parent
ROW, COLUMN = np.mgrid[:36, :40]
SHADOWS = ((COLUMN - 12) / 6) ** 2 + ((ROW - 18) / 12) ** 2 < 1, ((COLUMN - 28) / 6) ** 2 + ((ROW - 18) / 12) ** 2 < 1
GREY8 = np.where(SHADOWS[0] | SHADOWS[1], 40 + ROW + COLUMN, 150 + 2 * ROW).astype(np.uint8)
GREY16 = (GREY8.astype(np.uint16) << 4) + (COLUMN % 16).astype(np.uint16)
MARKER = "MARKER"
"""Stands in every attribute of a patient; no message may repeat it."""


def write_rasters() -> None:
    """PNG, JPEG, TIFF and NPY."""
    eight, sixteen = Image.fromarray(GREY8), Image.fromarray(GREY16)
    exif = Image.Exif()
    exif[274] = 6
    eight.save(FOLDER / "grey8.png")
    sixteen.save(FOLDER / "grey16.png")
    Image.fromarray(GREY8 > 120).save(FOLDER / "bits.png")
    eight.convert("P").save(FOLDER / "palette.png")
    eight.convert("LA").save(FOLDER / "alpha.png")
    eight.save(FOLDER / "turned.png", exif=exif)
    cv2.imwrite(str(FOLDER / "rgb16.png"), np.stack([GREY16] * 3, axis=2))
    eight.save(FOLDER / "grey.jpg", quality=90)
    eight.convert("RGB").save(FOLDER / "rgb.jpg", exif=exif)
    eight.save(FOLDER / "progressive.jpg", progressive=True)
    eight.convert("CMYK").save(FOLDER / "cmyk.jpg")
    sixteen.save(FOLDER / "plain.tif")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        eight.save(FOLDER / f"{compression}.tif", compression=compression)
    Image.fromarray(GREY16.astype(np.float32) / 7).save(FOLDER / "float.tif")
    np.save(FOLDER / "u2.npy", GREY16)
    np.save(FOLDER / "f4.npy", np.asfortranarray(GREY16.astype(">f4")))


def radiograph(pixels: np.ndarray[Any, Any], syntax: UID) -> Dataset:
    """A DX image with every attribute that the reader looks at."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality, dataset.PresentationLUTShape, dataset.BodyPartExamined = "DX", "IDENTITY", "CHEST"
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = f"{MARKER}^A", f"{MARKER}B", f"{MARKER}C"
    dataset.PatientBirthDate, dataset.PatientComments, dataset.InstitutionName = "19000101", MARKER, MARKER
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        dataset.BitsAllocated,
        dataset.BitsAllocated - 1,
        0,
    )
    dataset.ImagerPixelSpacing, dataset.ViewPosition, dataset.PatientOrientation = [0.2, 0.2], "PA", ["L", "F"]
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = "1500", "3000", "LINEAR"
    dataset.ShutterShape, dataset.ShutterLeftVerticalEdge, dataset.ShutterRightVerticalEdge = "RECTANGULAR", 1, 40
    dataset.ShutterUpperHorizontalEdge, dataset.ShutterLowerHorizontalEdge = 1, 36
    dataset.PixelPaddingValue = 0
    dataset["PixelPaddingValue"].VR = "US"
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def table(first: int, bits: int) -> Dataset:
    """A look-up table of 4096 entries."""
    content = Dataset()
    content.LUTDescriptor = [4096, first, bits]
    content.LUTData = np.linspace(0, (1 << bits) - 1, 4096).astype("<u2").tobytes()
    content["LUTDescriptor"].VR, content["LUTData"].VR = "US", "OW"
    return content


def write_dicoms() -> None:
    """One image in every transfer syntax that can be written here, and with every kind of table."""
    for name, syntax in (
        ("explicit", ExplicitVRLittleEndian),
        ("implicit", ImplicitVRLittleEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        write(name, radiograph(GREY16, syntax))
    big = radiograph(GREY16, ExplicitVRBigEndian)
    big.PixelData = GREY16.astype(">u2").tobytes()
    write("big-endian", big)
    for name, syntax in (("rle", RLELossless), ("jpeg2000", JPEG2000Lossless)):
        compressed = radiograph(GREY16, ExplicitVRLittleEndian)
        compressed.compress(syntax, generate_instance_uid=False)
        write(name, compressed)
    content = io.BytesIO()
    Image.fromarray(GREY8).save(content, "JPEG", quality=90)
    jpeg = radiograph(GREY8, JPEGBaseline8Bit)
    jpeg.PixelData = encapsulate([content.getvalue()])
    jpeg["PixelData"].VR, jpeg["PixelData"].is_undefined_length = "OB", True
    write("jpeg", jpeg)
    for name, transcoded in (
        ("jpeg-lossless", gdcm.TransferSyntax.JPEGLosslessProcess14_1),
        ("jpeg-ls", gdcm.TransferSyntax.JPEGLSLossless),
    ):
        write_transcoded(name, gdcm.TransferSyntax(transcoded))
    write_deep_jpeg()
    modality, voi = radiograph(GREY16, ExplicitVRLittleEndian), radiograph(GREY16, ExplicitVRLittleEndian)
    modality.ModalityLUTSequence = [table(0, 16)]
    write("modality-table", modality)
    del voi.WindowCenter, voi.WindowWidth
    voi.VOILUTSequence, voi.PhotometricInterpretation = [table(0, 12)], "MONOCHROME1"
    write("voi-table", voi)
    content = io.BytesIO()
    bare = radiograph(GREY16, ImplicitVRLittleEndian)
    del bare.file_meta
    dcmwrite(content, bare, implicit_vr=True, little_endian=True)
    (FOLDER / "no-preamble.dcm").write_bytes(content.getvalue())


def write(name: str, dataset: Dataset) -> None:
    """Write one data set as ``NAME.dcm``."""
    dataset.save_as(FOLDER / f"{name}.dcm", enforce_file_format=True)


def write_transcoded(name: str, syntax: gdcm.TransferSyntax) -> None:
    """Write ``explicit.dcm`` in a transfer syntax that only GDCM writes, as ``NAME.dcm``."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(FOLDER / "explicit.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(syntax)
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(FOLDER / f"{name}.dcm"))
    assert writer.Write()


def write_deep_jpeg() -> None:
    """Write a JPEG of 12 bits, which only dcmtk's ``dcmcjpeg`` writes, as ``jpeg-extended.dcm``."""
    deep = radiograph(GREY16, ExplicitVRLittleEndian)
    deep.BitsStored, deep.HighBit = 12, 11
    write("jpeg-extended", deep)
    path = FOLDER / "jpeg-extended.dcm"
    subprocess.run(["dcmcjpeg", "+ee", "+un", path, path], check=True)


def write_tiff_by_hand() -> None:
    """A WhiteIsZero TIFF, which Pillow does not write."""
    pixels = GREY16.astype("<u2")
    tags = {256: 40, 257: 36, 258: 16, 259: 1, 262: 0, 273: 8, 277: 1, 278: 36, 279: pixels.nbytes}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    start = b"II*\0" + struct.pack("<I", 8 + pixels.nbytes)
    (FOLDER / "white-is-zero.tif").write_bytes(start + pixels.tobytes() + directory)


if __name__ == "__main__":
    write_rasters()
    write_tiff_by_hand()
    write_dicoms()
