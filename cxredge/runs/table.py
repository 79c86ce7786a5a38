"""``results.csv``: ``results.jsonl`` as a table, for spreadsheets and statistics programs.

It is made from ``results.jsonl`` when a run ends, with a column for each field that occurs: nested fields
as ``milliseconds.read``, lists joined by semicolons.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxredge.errors import OutputError
from cxredge.runs.results import RESULTS, atomic_file

TABLE, PARQUET = "results.csv", "results.parquet"
"""Made when a run ends, the second by :mod:`cxredge.cluster.table`."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet program run a text as a formula."""


def write_table(folder: Path) -> None:
    """Write ``results.csv`` of the ``results.jsonl`` in an output folder; holds one line in memory at a time.

    Raises:
        OutputError: it cannot be written, or ``results.jsonl`` cannot be read.
    """
    columns: dict[str, None] = {}
    for record in read_records(folder):
        columns.update(dict.fromkeys(flattened(record)))
    with (
        atomic_file(folder / TABLE) as file,
        io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True) as text,
    ):
        writer = csv.DictWriter(text, tuple(columns), lineterminator="\n")
        writer.writeheader()
        for record in read_records(folder):
            writer.writerow(flattened(record))


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of ``results.jsonl`` in an output folder.

    Raises:
        OutputError: there is none, or it is damaged.
    """
    path = folder / RESULTS
    try:
        with path.open("rb") as file:
            for line in file:
                yield json.loads(line)
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(f"{path}: is damaged; the same command with --resume makes it anew") from error


def flattened(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The cells of one record."""
    cells: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            cells.update(flattened(value, f"{prefix}{name}."))
        else:
            cells[prefix + name] = cell(value)
    return cells


def cell(value: Any) -> Any:
    """One value as a cell; a text that a spreadsheet program would run is preceded by an apostrophe."""
    text = ";".join(map(str, value)) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA_STARTS) else text
