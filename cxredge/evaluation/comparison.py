"""Results of several ``cxredge evaluate --json`` runs as one Markdown table, beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxredge.errors import ConfigError
from cxredge.evaluation.published import TABLE_3
from cxredge.limits import read_json

LEVELS = ("none", "weak", "harsh")
TITLES = {"dice": "Dice", "tpr": "TPR", "tpr_inside_lung": "TPR inside the lung"}
ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One model's means.

    Attributes:
        label: name of the row.
        means: by (data set, measure, shift).
        counts: cases by (data set, measure).
    """

    label: str
    means: dict[tuple[str, str, str], float]
    counts: dict[tuple[str, str], int]


def read_row(path: Path, label: str | None = None) -> Row:
    """Read a file of ``cxredge evaluate --json``.

    Args:
        path: the file.
        label: name of the row; ``None`` for the file's stem.

    Raises:
        ConfigError: it cannot be read, or is not such a file.
    """
    try:
        datasets: list[dict[str, Any]] = read_json(path)["datasets"]
        cells = [
            ((str(data["dataset"]), measure, str(data["shift"])), data[measure])
            for data in datasets
            for measure in TITLES
            if measure in data
        ]
        means = {key: float(found["mean"]) for key, found in cells}
        counts = {key[:2]: int(found["count"]) for key, found in cells}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is not a file of 'cxredge evaluate --json': {error!r}") from error
    return Row(label or path.stem, means, counts)


def markdown_table(rows: Sequence[Row]) -> str:
    """A table of the means under no, weak and harsh shift: a row a model, a column a data set and measure."""
    columns = list(dict.fromkeys(key for row in rows for key in row.counts))
    titles = [f"{dataset} {TITLES[measure]}{_count(rows, (dataset, measure))}" for dataset, measure in columns]
    lines = [["model", *titles], ["---"] * (1 + len(columns))]
    for row in rows:
        cells = [[row.means.get((*column, level)) for level in LEVELS] for column in columns]
        lines.append([row.label, *(_cell(values) for values in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def published_table() -> str:
    """Table 3 of Oh & Ye (ECCV 2022), whose test images are others than ours."""
    lines = [["published (Oh & Ye, Table 3; other images)", "Dice", "TPR"], ["---"] * 3]
    lines += [[row.method, _cell(row.dice, 2), _cell(row.tpr, 2)] for row in TABLE_3]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _count(rows: Sequence[Row], column: tuple[str, str]) -> str:
    """Number of cases as ``" (40)"`` where all rows have the same, else nothing."""
    counts = {row.counts[column] for row in rows if column in row.counts}
    return f" ({counts.pop()})" if len(counts) == 1 else ""


def _cell(values: Sequence[float | None], digits: int = 3) -> str:
    """``.971/.957/.918``; a dash for what was not measured."""
    if all(value is None for value in values):
        return ABSENT
    return "/".join(ABSENT if value is None else f"{value:.{digits}f}".removeprefix("0") for value in values)
