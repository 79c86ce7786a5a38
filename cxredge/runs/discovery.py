"""Which files a command works on, and under which names their results are kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from cxredge.dicom.prefix import HEAD_LENGTH, is_dicom, is_directory, lacks_preamble
from cxredge.errors import InputError
from cxredge.radiograph import RADIOGRAPH_SUFFIXES
from cxredge.runs.manifest import is_manifest, read_manifest
from cxredge.runs.names import safe_path
from cxredge.runs.remote import find_remote, require_valid, url_name
from cxredge.runs.results import RESULT_SUFFIXES, Target

Source: TypeAlias = Path | str
"""A file or folder, or the URL of one."""
DICOMDIR = "DICOMDIR"
"""Name of the file of a DICOM medium that lists the others (PS3.10)."""


@dataclass(frozen=True)
class Found:
    """Radiographs below the inputs of a command.

    Attributes:
        targets: one for each, in order.
        skipped: files in folders that are not radiographs.
        outside: links in folders to radiographs outside of them; not followed.
    """

    targets: tuple[Target, ...]
    skipped: int
    outside: tuple[Path, ...] = ()


def find_radiographs(inputs: Sequence[Source], output: Path) -> Found:
    """Find the radiographs among files, folders, URLs and manifests.

    What the caller names is always taken, even where it does not exist: its result says so. Of a DICOMDIR those
    images are taken that it lists. In folders (recursively, in order of name, links to folders not followed) those
    files are taken whose name or first bytes say that they are radiographs; hidden ones, DICOMDIRs, results of
    earlier runs, the output folder and links that lead out of the folder are not. Results keep the folders'
    structure, in names that every file system takes; where several folders are given, each keeps its name.

    Args:
        inputs: files, folders, DICOMDIRs and manifests (Parquet); those that are text are URLs.
        output: the output folder.

    Raises:
        InputError: two inputs would have results of the same name; a manifest cannot be read, a URL not be used.
    """
    local = [path for path in dict.fromkeys(inputs) if isinstance(path, Path) and not is_manifest(path)]
    listings = {path: listing for path in local if (listing := listed(path)) is not None}
    roots = {path if os.path.isdir(path) else path.parent for path in local if os.path.isdir(path) or path in listings}  # noqa: PTH112 (never raises)
    found: list[tuple[Source, PurePath]] = []
    skipped = 0
    outside: list[Path] = []
    for path in inputs:
        if isinstance(path, str) or is_manifest(path):
            found += find_elsewhere(path)
        elif os.path.isdir(path):  # noqa: PTH112
            files = list(files_below(path, output))
            images = [file for file in files if looks_like_radiograph(file)]
            skipped += len(files) - len(images)
            leading_out = {file for file in images if leads_out(file, path)}
            outside += sorted(leading_out)
            found += named_below(path, (file for file in images if file not in leading_out), keep_name=len(roots) > 1)
        elif path in listings:
            found += named_below(path.parent, listings[path], keep_name=len(roots) > 1)
        else:
            found.append((path, PurePath(path.name)))
    return Found(tuple(name_targets(found)), skipped, tuple(outside))


def find_elsewhere(source: Source) -> Iterator[tuple[Source, PurePath]]:
    """The radiographs at a URL, or in a manifest, with the names of their results; see the modules that find them."""
    if isinstance(source, str):
        require_valid(source)
    if is_manifest(source):
        yield from read_manifest(source)
    elif isinstance(source, str):
        yield from find_remote(source)


def listed(path: Path) -> list[Path] | None:
    """The images that a DICOMDIR lists; ``None`` for other files, and for a damaged one: its result says so."""
    if not is_directory(first_bytes(path)):
        return None
    from cxredge.libraries.open_gdcm import import_quietly

    import_quietly()
    from cxredge.dicom.directory import listed_images

    try:
        return listed_images(path)
    except InputError:
        return None


def named_below(folder: Path, files: Iterable[Path], *, keep_name: bool) -> Iterator[tuple[Path, PurePath]]:
    """Files below ``folder`` with the names of their results: their paths in it, after its name if that is kept."""
    root = PurePath(folder.resolve().name) if keep_name else PurePath()
    for file in files:
        yield file, root / file.relative_to(folder)


def files_below(folder: Path, output: Path) -> Iterator[Path]:
    """Files below ``folder`` in order of name, without hidden ones, results and those in ``output``."""
    excluded = output.resolve()
    for parent, folders, files in os.walk(folder):
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in shown if (Path(parent) / name).resolve() != excluded)
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(RESULT_SUFFIXES):
                yield Path(parent) / name


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file below ``folder`` is a link to something that is not, as whoever fills the folder may put there."""
    return file.is_symlink() and not file.resolve().is_relative_to(folder.resolve())


def looks_like_radiograph(path: Path) -> bool:
    """Whether a file's name, or the first bytes of a file without an extension, say that it is a radiograph."""
    by_name = name_of_radiograph(path)
    if by_name is not None:
        return by_name and path.is_file()
    return head_of_radiograph(first_bytes(path))


def name_of_radiograph(name: PurePath) -> bool | None:
    """Whether a file's name says that it is a radiograph; ``None`` where it says nothing."""
    if name.name.upper() == DICOMDIR:
        return False
    return True if name.suffix.lower() in RADIOGRAPH_SUFFIXES else None


def head_of_radiograph(head: bytes) -> bool:
    """Whether the first bytes of a file say that it is a DICOM object."""
    return (is_dicom(head) and not is_directory(head)) or lacks_preamble(head)


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file; none where it is not a file, or cannot be read."""
    if not os.path.isfile(path):  # noqa: PTH113 (never raises)
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_LENGTH)
    except OSError:
        return b""


def name_targets(found: Iterable[tuple[Source, PurePath]]) -> Iterator[Target]:
    """Give each input its output name: the stem, or the whole name where two stems collide.

    Raises:
        InputError: two inputs would have results of the same name all the same.
    """
    found = list(without_repeats(found))
    stems = Counter(_folded(_stem(name)) for _, name in found)
    chosen = ((source, name if stems[_folded(_stem(name))] > 1 else _stem(name)) for source, name in found)
    names = [(source, safe_path(name)) for source, name in chosen]
    taken: dict[str, Source] = {}
    for source, name in names:
        other = taken.setdefault(_folded(name), source)
        if other != source:
            raise InputError(f"{other} and {source} would have results of the same name; run them into two folders")
        yield target_of(source, Path(name))


def target_of(source: Source, stem: Path) -> Target:
    """The target of a file, or of a URL."""
    return Target(Path(url_name(source).name), stem, source) if isinstance(source, str) else Target(source, stem)


def without_repeats(found: Iterable[tuple[Source, PurePath]]) -> Iterator[tuple[Source, PurePath]]:
    """Each file once, however its path is written; a link counts as a file of its own."""
    seen: set[str] = set()
    for source, name in found:
        path = source if isinstance(source, str) else os.path.normpath(source.absolute())
        if path not in seen:
            seen.add(path)
            yield source, name


def _stem(name: PurePath) -> PurePath:
    """``name`` without a radiograph's extension; other dots, as in a UID, belong to the name."""
    return name.with_suffix("") if name.suffix.lower() in RADIOGRAPH_SUFFIXES else name


def _folded(name: PurePath) -> str:
    """A name as a case-insensitive file system sees it."""
    return str(name).casefold()
