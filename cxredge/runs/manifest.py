"""A Parquet file that lists radiographs: an input of ``cxredge segment`` in place of a folder (extra ``ray``).

Its column ``path`` holds paths and URLs, relative ones below the manifest's own folder. A column ``name``, where there
is one, says what the results are called; else they are called after the path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from cxredge.errors import InputError
from cxredge.limits import MOST_LISTED
from cxredge.runs.remote import (
    OF_ARROW,
    is_url,
    open_place,
    reasons,
    require_libraries,
    require_no_secret,
    split_path,
    url_name,
)

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".parquet"
PATHS, NAMES = "path", "name"


def is_manifest(source: Path | str) -> bool:
    """Whether an input is a manifest, by its name; folders of that name are none."""
    if isinstance(source, str):
        return PurePosixPath(urlsplit(source).path).suffix.lower() == SUFFIX
    return source.suffix.lower() == SUFFIX and not os.path.isdir(source)  # noqa: PTH112 (never raises)


def read_manifest(manifest: Path | str) -> Iterator[tuple[Path | str, PurePath]]:
    """The radiographs that a manifest lists, with the names of their results.

    Args:
        manifest: a path, or a URL.

    Raises:
        InputError: it cannot be read, is not Parquet, lacks the column ``path``, or a row cannot be used.
        MissingExtraError: pyarrow is not installed.
    """
    table = read_table(manifest)
    paths, names = (texts(table, column, manifest) for column in (PATHS, NAMES))
    seen: dict[str, PurePath] = {}
    for row, (path, name) in enumerate(zip(paths, names, strict=True), 1):
        try:
            source, called = read_row(path, name, manifest)
        except (InputError, ValueError) as error:  # ValueError: a URL that urlsplit does not take
            reason = error.reason if isinstance(error, InputError) else "is no valid URL"
            raise InputError(f"row {row} {reason}", manifest) from None
        key = source if isinstance(source, str) else os.path.normpath(source.absolute())
        if seen.setdefault(key, called) != called:
            raise InputError(f"row {row} gives another {NAMES} to a {PATHS} that an earlier row has", manifest)
        yield source, called


def read_row(path: str | None, name: str | None, manifest: Path | str) -> tuple[Path | str, PurePath]:
    """The file or URL of a row, and what its results are called.

    Raises:
        InputError: the row cannot be used.
        ValueError: its URL is malformed.
    """
    if not path:
        raise InputError(f"has no {PATHS}")
    if "\0" in path:
        raise InputError(f"has a {PATHS} with a NUL")
    source = located(path, manifest)
    if isinstance(source, str):
        try:
            require_no_secret(source)
        except InputError as error:
            raise InputError(f"cannot be used: {error.reason}") from None
    called = PurePath(name or name_below(path, manifest))
    if not called.name:
        raise InputError("names no result")
    return source, called


def read_table(manifest: Path | str) -> pa.Table:
    """The columns of a manifest that count.

    Raises:
        InputError: it cannot be read, is too long, or lacks the column ``path``.
    """
    require_libraries()
    from pyarrow import parquet

    with reasons(str(manifest), "cannot be read as Parquet"):
        if isinstance(manifest, str):
            place = open_place(manifest)
            file = parquet.ParquetFile(place.files.open_input_file(place.path))
        else:
            file = parquet.ParquetFile(manifest)
        with file:
            columns = file.schema_arrow.names
            if PATHS not in columns:
                raise InputError(f"has no column '{PATHS}'; there are {', '.join(columns) or 'none'}", manifest)
            if file.metadata.num_rows > MOST_LISTED:
                raise InputError(f"has {file.metadata.num_rows} rows, at most {MOST_LISTED} are read", manifest)
            return file.read([name for name in (PATHS, NAMES) if name in columns])


def texts(table: pa.Table, column: str, manifest: Path | str) -> list[str | None]:
    """A column of text; ``None`` in every row where it is missing.

    Raises:
        InputError: it holds something else.
    """
    import pyarrow as pa

    if column not in table.column_names:
        return [None] * table.num_rows
    values = table.column(column)
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"its column '{column}' holds {kind}, not text", manifest)
    found: list[str | None] = values.to_pylist()
    return found


def located(path: str, manifest: Path | str) -> Path | str:
    """The file or URL that a row means; a relative one at a URL has the parameters of the manifest's own."""
    if is_url(path):
        return path
    if isinstance(manifest, Path):
        return manifest.parent / path
    if os.path.isabs(path):  # noqa: PTH117 (nothing of a file system is asked)
        return Path(path)
    path_of_manifest, rest = split_path(manifest)
    return f"{folder_of(path_of_manifest)}{quote(path) if urlsplit(manifest).scheme in OF_ARROW else path}{rest}"


def folder_of(url: str) -> str:
    """A URL up to the last slash of its path."""
    path, _ = split_path(url)
    return path[: path.rindex("/") + 1]


def name_below(path: str, manifest: Path | str) -> PurePath:
    """What the results of a row are called: its path below the manifest's folder, else the whole of it."""
    if is_url(path):
        name, folder = url_name(path), url_name(str(manifest)).parent
        below = isinstance(manifest, str) and path.startswith(folder_of(manifest)) and name.is_relative_to(folder)
        return PurePath(name.relative_to(folder) if below else name)
    name_of_file = PurePath(path)
    below = isinstance(manifest, Path) and name_of_file.is_relative_to(manifest.parent)
    return name_of_file.relative_to(Path(manifest).parent) if below else name_of_file
