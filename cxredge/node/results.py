"""The DICOM objects that a node makes of one radiograph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cxredge.algorithm import Algorithm
from cxredge.errors import InputError
from cxredge.runs.formats import Format
from cxredge.runs.writer import ResultWriter, dicom_header
from cxredge.segmenter import Segmentation


def result_objects(
    path: Path, segmentation: Segmentation, algorithm: Algorithm, formats: tuple[Format, ...]
) -> Iterator[bytes]:
    """DICOM files with the lungs of a radiograph.

    Args:
        path: the radiograph's file.
        segmentation: of it.
        algorithm: the model.
        formats: ``dicom-seg``, ``dicom-sc``; one that cannot be made of this radiograph is left out.

    Raises:
        InputError: none can be made.
    """
    writer = ResultWriter(formats, algorithm)
    source = dicom_header(path, segmentation)
    refusal: InputError | None = None
    made = False
    for name in formats:
        try:
            files = list(writer.files(name, segmentation, source))
        except InputError as error:
            refusal = error
            continue
        for _, content in files:
            made = True
            yield content
    if refusal and not made:
        raise refusal
