"""A Parquet file that lists radiographs: an input of ``cxredge segment`` in place of a folder (extra ``ray``).

Its column ``path`` holds paths and URLs, relative ones below the manifest's own folder. A column ``name``, where there
is one, says what the results are called; else they are called after the path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxredge.errors import InputError
from cxredge.runs.remote import is_url, open_place, reasons, require_libraries, url_name

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
        InputError: it cannot be read, is not Parquet, lacks the column ``path``, or a row of it is empty.
        MissingExtraError: pyarrow is not installed.
    """
    table = read_table(manifest)
    folder = manifest.rsplit("/", 1)[0] if isinstance(manifest, str) else manifest.parent
    paths, names = (texts(table, column, manifest) for column in (PATHS, NAMES))
    for row, (path, name) in enumerate(zip(paths, names, strict=True), 1):
        if not path:
            raise InputError(f"row {row} has no {PATHS}", manifest)
        yield located(path, folder), PurePath(name or name_below(path, folder))


def read_table(manifest: Path | str) -> pa.Table:
    """The columns of a manifest that count.

    Raises:
        InputError: it cannot be read, or lacks the column ``path``.
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


def located(path: str, folder: Path | str) -> Path | str:
    """The file or URL that a row means."""
    if is_url(path):
        return path
    if isinstance(folder, str) and not os.path.isabs(path):  # noqa: PTH117 (nothing of a file system is asked)
        return f"{folder}/{path}"
    return Path(folder, path) if isinstance(folder, Path) else Path(path)


def name_below(path: str, folder: Path | str) -> PurePath:
    """What the results of a row are called: its path below the manifest's folder, else the whole of it."""
    if is_url(path):
        start = f"{folder}/"
        return PurePath(path[len(start) :] if path.startswith(start) else url_name(path))
    name = PurePath(path)
    return name.relative_to(folder) if isinstance(folder, Path) and name.is_relative_to(folder) else name
