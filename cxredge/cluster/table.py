"""``results.parquet``: ``results.jsonl`` as a table for programs that read many results, made when a run ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxredge.runs.identity import ATTRIBUTES
from cxredge.runs.results import atomic_file
from cxredge.runs.table import PARQUET, read_records

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 10_000
"""Rows of a row group, which is as many records as are in memory at once."""


def write_parquet(folder: Path, *, with_identity: bool) -> None:
    """Write ``results.parquet`` of the ``results.jsonl`` in an output folder.

    Args:
        folder: the output folder.
        with_identity: whether the records say whose radiograph it is.

    Raises:
        OutputError: it cannot be written, or ``results.jsonl`` cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns = schema(ATTRIBUTES if with_identity else ())
    with atomic_file(folder / PARQUET) as file, parquet.ParquetWriter(file, columns) as writer:
        for records in in_groups(read_records(folder)):
            writer.write_table(pa.Table.from_pylist([row(record) for record in records], columns))


def in_groups(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Records, some at a time."""
    while some := list(islice(records, ROWS_AT_ONCE)):
        yield some


def row(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row: what was not measured is null; texts are UTF-8, whatever a file's name is made of."""
    cells = {name: as_cell(value) for name, value in record.items()}
    return {**cells, "measurements": record["measurements"] or None}


def as_cell(value: Any) -> Any:
    """A value as pyarrow takes it."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return list(value.items()) if isinstance(value, dict) else value


def schema(more: Iterable[str] = ()) -> pa.Schema:
    """Columns: the fields of a record (docs/outputs.md), and ``more`` of text."""
    import pyarrow as pa

    text, whole, number, flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    lung = pa.struct({"area_pixels": whole, "area_mm2": number, "box": pa.list_(whole)})
    measurements = pa.struct(
        {
            "left": lung,
            "right": lung,
            "area_ratio": number,
            "symmetry": number,
            "joined": flag,
            "sides_from": text,
            "spacing_plane": text,
        }
    )
    return pa.schema(
        {
            "input": text,
            "status": text,
            "error": text,
            "mask": text,
            "outputs": pa.list_(text),
            "not_written": pa.map_(text, text),
            "width": whole,
            "height": whole,
            "lung_area_fraction": number,
            "lung_area_mm2": number,
            "measurements": measurements,
            "flags": pa.list_(text),
            "milliseconds": pa.map_(text, number),
            **dict.fromkeys(more, text),
        }
    )
