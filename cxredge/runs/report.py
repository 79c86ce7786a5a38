"""``--report``: one self-contained HTML page about a run, made from ``results.jsonl`` and the pictures.

It loads nothing: pictures, style and script are inside, and a content security policy forbids the rest.
Everything from outside is escaped. Its size is bounded: at most 5000 rows, of which 500 have a picture;
what failed or is flagged comes first. Sorting is by a click on a column's head.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from cxredge import __version__
from cxredge.contours import CONTOUR_COLOUR
from cxredge.libraries.open_cv import cv2
from cxredge.runs.results import OVERLAY_SUFFIX, write_atomically
from cxredge.runs.table import read_records

MOST_ROWS, MOST_PICTURES = 5000, 500
LONGEST_TEXT = 300
"""Characters of a path or an error that are shown."""
THUMBNAIL_SIDE = 160
JPEG_QUALITY = 75
ORDER = {"failed": 0, "warning": 1, "ok": 2}
COLUMNS = ("#", "picture", "input", "status", "flags and errors", "lung area %", "lung area mm²", "read ms", "all ms")

STYLE = """
body{font:14px/1.4 system-ui,sans-serif;margin:1.5rem;color:#222}
table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:middle;overflow-wrap:anywhere}
th{position:sticky;top:0;background:#f4f4f4;white-space:nowrap}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid #06c}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
.failed{background:#fdecea}.warning{background:#fff8e1}
img{max-width:160px;max-height:160px;display:block}
"""

SCRIPT = """
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];
function key(row, column) {
  const text = row.cells[column].dataset.value;
  return text === "" || isNaN(text) ? text : Number(text);
}
function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const descending = head.getAttribute("aria-sort") === "ascending";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...body.rows].map(row => [key(row, column), row]);
  rows.sort((a, b) => descending ? compare(b[0], a[0]) : compare(a[0], b[0]));
  body.append(...rows.map(pair => pair[1]));
}));
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'sha256-$style_hash'; script-src 'sha256-$script_hash'">
<meta name="viewport" content="width=device-width">
<title>cxredge: $folder</title>
<style>$style</style>
</head>
<body>
<h1>Lungs in $total radiographs</h1>
<p>$folder · $counts · cxredge $version · research use only, not for diagnosis</p>
<p>$shown</p>
<table>
<thead><tr>$heads</tr></thead>
<tbody>
$rows
</tbody>
</table>
<script>$script</script>
</body>
</html>
""")


def write_report(path: Path, output: Path) -> None:
    """Write the page about the results in an output folder.

    Args:
        path: of the page.
        output: folder with ``results.jsonl`` and the files that it names.

    Raises:
        OutputError: it cannot be written, or there are no results.
    """
    statuses = Counter(record["status"] for record in read_records(output))
    rows = nsmallest(MOST_ROWS, enumerate(read_records(output), 1), key=lambda row: (ORDER[row[1]["status"]], row[0]))
    counts = ", ".join(f"{statuses[status]} {status}" for status in ("ok", "warning", "failed"))
    page = PAGE.substitute(
        style=STYLE,
        style_hash=policy_hash(STYLE),
        script=SCRIPT,
        script_hash=policy_hash(SCRIPT),
        folder=escaped(output.name),
        total=statuses.total(),
        counts=counts,
        version=__version__,
        shown=shown(len(rows), statuses.total()),
        heads="".join(map(head, COLUMNS)),
        rows="\n".join(table_rows(output, rows)),
    )
    write_atomically(path, page.encode("utf-8", "backslashreplace"))


def shown(rows: int, total: int) -> str:
    """What of the results is on the page."""
    if rows == total:
        return "What failed or is flagged comes first. Click on a column to sort."
    return f"{rows} of {total} results, what failed or is flagged first; all are in results.csv."


def table_rows(output: Path, rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[str]:
    """The rows of the table: of each line of ``results.jsonl`` its number and what it says."""
    for place, (number, record) in enumerate(rows):
        picture = thumbnail(output, record) if place < MOST_PICTURES else None
        yield row(number, record, picture)


def row(number: int, record: dict[str, Any], picture: bytes | None) -> str:
    """One row."""
    times = record["milliseconds"]
    share, area = record["lung_area_fraction"], record["lung_area_mm2"]
    remarks = record["error"] or ", ".join(record["flags"])
    cells = (
        cell(number, number),
        cell("", image(picture), raw=True),
        cell(record["input"], record["input"]),
        cell(record["status"], record["status"]),
        cell(remarks, remarks),
        cell(*("", "") if share is None else (share, f"{share:.1%}")),
        cell(*("", "") if area is None else (area, f"{area:.0f}")),
        cell(*(times["read"], f"{times['read']:.0f}") if times else ("", "")),
        cell(*(round(sum(times.values()), 2), f"{sum(times.values()):.0f}") if times else ("", "")),
    )
    return f'<tr class="{escaped(record["status"])}">{"".join(cells)}</tr>'


def cell(value: Any, text: Any, *, raw: bool = False) -> str:
    """One cell: what it is sorted by and what it shows."""
    return f'<td data-value="{escaped(value)}">{text if raw else escaped(text)}</td>'


def head(name: str) -> str:
    """The head of a column; the one of the pictures cannot be sorted."""
    return f"<th>{name}</th>" if name == "picture" else f'<th><button type="button">{escaped(name)}</button></th>'


def image(picture: bytes | None) -> str:
    """A picture inside the page."""
    return "" if picture is None else f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'


def thumbnail(output: Path, record: dict[str, Any]) -> bytes | None:
    """A small JPEG of the radiograph with the contour, or of the mask where there is no overlay; else nothing."""
    mask = picture(output, record["mask"], cv2.IMREAD_GRAYSCALE)
    overlay = next((name for name in record["outputs"] if name.endswith(OVERLAY_SUFFIX)), None)
    shown = picture(output, overlay, cv2.IMREAD_COLOR)
    shown = mask if shown is None else shown
    if shown is None:
        return None
    scale = min(1.0, THUMBNAIL_SIDE / max(shown.shape[:2]))
    size = (max(1, round(shown.shape[1] * scale)), max(1, round(shown.shape[0] * scale)))
    small = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    if mask is not None and small.ndim == 3:
        inside = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(small, contours, -1, CONTOUR_COLOUR[::-1], 1)
    done, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return content.tobytes() if done else None


def picture(output: Path, name: str | None, mode: int) -> Any:
    """A picture that a run has written, or ``None`` where there is none (any more)."""
    if name is None:
        return None
    try:
        content = np.frombuffer((output / name).read_bytes(), np.uint8)
    except OSError:
        return None
    return cv2.imdecode(content, mode) if content.size else None


def escaped(value: Any) -> str:
    """A value as text that no browser takes for anything else, cut where it is long."""
    text = str(value)
    return html.escape(text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…")


def policy_hash(text: str) -> str:
    """Hash by which the content security policy lets a script or style of the page through."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
