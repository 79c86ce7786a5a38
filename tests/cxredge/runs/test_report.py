"""The page about a run: whole by itself, escaped, bounded, and sortable in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cxredge import Segmenter
from cxredge.cli import main
from cxredge.runs.report import MOST_PICTURES, MOST_ROWS, escaped, write_report
from cxredge.runs.results import Target, mask_png, overlay_png, record, write_atomically

from ..chromium import Browser, browser, find_chromium

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&.png"


@pytest.fixture
def output(tmp_path: Path, segmenter: Segmenter, chest: np.ndarray) -> Path:
    """An output folder with two good results, one of them flagged, and one that failed."""
    from cxredge.errors import InputError

    folder = tmp_path / "out"
    lines = []
    for number, name in enumerate(("b.png", EVIL)):
        target = Target(Path("/scans") / name, Path(f"{number}"))
        pixels = np.where(np.arange(96) < 48 if number else True, chest, 3000).astype(np.uint16)
        segmentation = segmenter(pixels)
        outputs = [p.as_posix() for p in (target.mask, target.overlay)]
        write_atomically(folder / target.mask, mask_png(segmentation.mask))
        write_atomically(folder / target.overlay, overlay_png(segmentation.radiograph, segmentation.mask))
        lines.append(record(target, segmentation, 1.0, outputs))
    lines.append(record(Target(Path("/scans/a.png"), Path("a")), InputError("is <b>damaged</b>")))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def page_of(output: Path) -> str:
    write_report(output / "report.html", output)
    return (output / "report.html").read_text(encoding="utf-8")


def test_everything_from_outside_is_escaped(output: Path) -> None:
    page = page_of(output)
    assert page.count("<script>") == 1
    assert "onerror=alert(2)>" not in page
    assert "<b>damaged" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert escaped('"><') == "&quot;&gt;&lt;"


def test_it_names_no_address_outside_of_itself(output: Path) -> None:
    page = page_of(output)
    assert not re.search(r"https?:|//[a-z]|url\(|<link|@import|\bsrc=\"(?!data:image/jpeg;base64,)", page)
    assert "default-src 'none'" in page


def test_what_failed_or_is_flagged_comes_first_and_has_its_row(output: Path) -> None:
    statuses = re.findall(r'<tr class="(\w+)"', page_of(output))
    assert statuses == ["failed", "warning", "ok"]


def test_pictures_show_the_contour_where_there_are_any(output: Path) -> None:
    assert page_of(output).count("data:image/jpeg") == 2
    for path in output.glob("*.overlay.png"):
        path.unlink()
    assert page_of(output).count("data:image/jpeg") == 2, "the mask alone"
    for path in output.glob("*.png"):
        path.unlink()
    assert page_of(output).count("data:image/jpeg") == 0


def test_its_size_is_bounded(output: Path) -> None:
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    many = [{**lines[0], "input": "x" * 5000}] * (MOST_ROWS + 1000) + [lines[2]]
    (output / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in many))
    page = page_of(output)
    assert page.count("<tr class=") == MOST_ROWS
    assert page.count("data:image/jpeg") == MOST_PICTURES - 1
    assert f"{MOST_ROWS} of {MOST_ROWS + 1001} results" in page
    assert re.findall(r'<tr class="(\w+)"', page)[0] == "failed"
    assert len(page) < 15 << 20


def test_a_name_that_is_not_unicode_does_not_stop_it(output: Path) -> None:
    text = (output / "results.jsonl").read_text()
    (output / "results.jsonl").write_text(text.replace("b.png", "b\\udcff.png"))
    assert "b\\udcff.png" in page_of(output)


def test_segment_writes_it(one_image_folder: Path, tmp_path: Path, model_file: Path) -> None:
    arguments = ["segment", one_image_folder, "-o", tmp_path / "out", "--model", model_file]
    result = CliRunner().invoke(main, [*map(str, arguments), "--report", str(tmp_path / "page" / "r.html")])
    assert result.exit_code == 0, result.output
    assert "chest.png" in (tmp_path / "page" / "r.html").read_text()


# In a browser


@pytest.fixture
def chromium() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this system (Debian: apt-get install chromium)")
    with browser(program) as opened:
        yield opened


def column(page: Browser, number: int) -> list[Any]:
    return page.evaluate(f"[...document.querySelectorAll('tbody tr')].map(row => row.cells[{number}].dataset.value)")


def test_it_sorts_and_asks_for_nothing_in_chromium(output: Path, chromium: Browser) -> None:
    path = output / "report.html"
    write_report(path, output)
    chromium.open(path)
    names = ["/scans/a.png", "/scans/b.png", f"/scans/{EVIL}"]
    assert chromium.evaluate("document.title") == "cxredge: out"
    assert chromium.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 50)")
    assert chromium.evaluate("document.images.length") == 2
    assert column(chromium, 2) != sorted(names)
    for clicks, expected in ((1, sorted(names)), (2, sorted(names, reverse=True))):
        chromium.evaluate("document.querySelectorAll('th')[2].querySelector('button').click()")
        assert column(chromium, 2) == expected, clicks
    chromium.evaluate("document.querySelectorAll('th')[8].querySelector('button').click()")
    times = column(chromium, 8)
    assert times[:2] == sorted(times[:2], key=float)
    assert times[2] == "", "what has no time comes last"
    assert chromium.evaluate("document.querySelectorAll('th')[8].getAttribute('aria-sort')") == "ascending"
    assert all(address.startswith(("data:", path.as_uri())) for address in chromium.requests), chromium.requests
    assert chromium.requests
    assert chromium.messages == []
