"""DICOMDIR, the index of a DICOM medium: which image files it lists (PS3.3, annex F; PS3.10).

The index came with a CD or a download, so that its file names are not trusted: every one must lie in the folder of
the index, links followed.
"""

from __future__ import annotations

from io import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.dataelem import RawDataElement

from cxredge.dicom.file import KnownLength
from cxredge.errors import CxredgeError, InputError, one_line
from cxredge.limits import LARGEST_MANIFEST, LimitError, require_file_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SEQUENCE_DELIMITERS = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
"""(FFFE,E0DD), which ends a sequence of undefined length, in either byte order (PS3.5, 7.5)."""
TAIL_LENGTH = 64
IMAGE = "IMAGE"
"""Directory Record Type of an image; others are patients, studies, reports, presentation states."""


def listed_images(index: Path) -> list[Path]:
    """The image files that a DICOMDIR lists, in its order, each once; files that are missing are kept.

    Raises:
        InputError: it cannot be read, or lists a file outside its folder.
    """
    try:
        require_file_size(index, LARGEST_MANIFEST)
        images = image_references(index)
        return list(dict.fromkeys(located(index.parent, components(image)) for image in images))
    except (CxredgeError, LimitError) as error:
        raise InputError(str(error), index) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", index) from error
    except Exception as error:  # pydicom raises many types on damaged files
        raise InputError(f"is a damaged DICOMDIR: {one_line(error)}", index) from error


def image_references(index: Path) -> list[Any]:
    """Referenced File IDs of the images in a DICOMDIR."""
    with KnownLength(index) as file:
        dataset = dcmread(file)
        file.seek(max(0, file.seek(0, SEEK_END) - TAIL_LENGTH))
        require_whole(dataset, file.read())
    records = dataset["DirectoryRecordSequence"].value or ()
    images = [record.get("ReferencedFileID") for record in records if record.get("DirectoryRecordType") == IMAGE]
    return [image for image in images if image]


def require_whole(dataset: Dataset, tail: bytes) -> None:
    """Raise :class:`InputError` where the directory is missing, or has no end: pydicom reads what there is.

    Args:
        dataset: what was read.
        tail: the last bytes of the file, which close a directory of undefined length.
    """
    element = dataset.get_item("DirectoryRecordSequence")
    whole = element is not None and (
        len(element.value or b"") >= element.length
        if isinstance(element, RawDataElement)
        else any(delimiter in tail for delimiter in SEQUENCE_DELIMITERS)
    )
    if not whole:
        raise InputError("is a damaged DICOMDIR: it is cut off, or has no directory")


def components(file_id: Any) -> list[str]:
    """Folders and name of a Referenced File ID (PS3.3, F.3.2.2).

    Raises:
        InputError: one of them is more than a name.
    """
    names = [file_id] if isinstance(file_id, str) else [str(name) for name in file_id]
    if any(name in ("", ".", "..") or set(name) & set("/\\\0:") for name in names):
        raise InputError(f"is a DICOMDIR that lists a file outside its folder: {'/'.join(names)!r}")
    return names


def located(folder: Path, names: list[str]) -> Path:
    """The path of a listed file, whose name may be written in another case on this file system.

    Raises:
        InputError: a link leads out of ``folder``.
    """
    path = folder
    for name in names:
        exact = path / name
        path = exact if exact.exists() else same_name(path, name) or exact
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError before Python 3.13
        inside = False
    if not inside:
        raise InputError(f"is a DICOMDIR that lists a file outside its folder: {'/'.join(names)!r}")
    return path


def same_name(folder: Path, name: str) -> Path | None:
    """The entry of ``folder`` that has ``name`` in another case, or with the version that ISO 9660 adds."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return None
    return next((entry for entry in entries if entry.name.partition(";")[0].rstrip(".").lower() == name.lower()), None)
