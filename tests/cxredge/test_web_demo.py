"""The page in a real browser gives the masks that Python gives, and asks the network for nothing."""

from __future__ import annotations

import base64
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cxredge import Segmenter
from cxredge.cli import main
from cxredge.errors import InputError
from cxredge.phantom import make_radiograph
from cxredge.web_demo import PACKAGE, VERSION, fetch_runtime, read_runtime

sys.path.insert(0, str(Path(__file__).parent))
from chromium import Browser, browser, find_chromium

LARGEST_FLIPPED_SHARE = 1e-4
PATIENCE = 200
"""Seconds that the page has for each step."""
MADE = ((1, (512, 512), False), (2, (700, 430), True), (3, (90, 120), True))
"""Made radiographs: seed, shape, and whether they are of 16 bits."""


@pytest.fixture(scope="module")
def runtime_archive(request: pytest.FixtureRequest) -> Path:
    """The npm package, fetched once and kept in pytest's cache."""
    import shutil
    import subprocess

    folder = request.config.cache.mkdir(PACKAGE)
    archive = folder / f"{PACKAGE}-{VERSION}.tgz"
    if not archive.is_file():
        npm = shutil.which("npm") or pytest.skip("npm is not installed")
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(folder)]
        if subprocess.run(command, capture_output=True, cwd=folder, timeout=200).returncode:
            pytest.skip(f"npm could not bring {PACKAGE} {VERSION}")
    return archive


@pytest.fixture(scope="module")
def page(runtime_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="needs the extra 'calibration'")
    folder = tmp_path_factory.mktemp("demo")
    run = CliRunner().invoke(main, ["web-demo", "-o", str(folder), "--ort", str(runtime_archive)])
    assert run.exit_code == 0, run.output
    return folder / "index.html"


@pytest.fixture(scope="module")
def started(page: Path) -> Iterator[Browser]:
    program = find_chromium() or pytest.skip("there is no Chromium")
    with browser(program) as opened:
        opened.call("Emulation.setDeviceMetricsOverride", width=900, height=1000, deviceScaleFactor=1, mobile=False)
        opened.open(page)
        assert wait_for(opened, "ready", "failed") == "ready", status(opened)
        yield opened


def status(page: Browser) -> str:
    return str(page.evaluate("document.getElementById('status').textContent"))


def wait_for(page: Browser, *states: str) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        state = str(page.evaluate("document.body.dataset.state"))
        if state in states:
            return state
        time.sleep(0.1)
    raise AssertionError(f"the page stays {state}: {status(page)} {page.messages}")


def drop(page: Browser, file: Path) -> str:
    """Drop a file on the page as a hand would; the state that the page ends in."""
    page.evaluate("document.body.dataset.state = 'dropping'")
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=200, y=120, data=data)
    return wait_for(page, "done", "failed")


def mask_of(page: Browser) -> np.ndarray:
    height, width = page.evaluate("[segmentation.height, segmentation.width]")
    text = page.evaluate("btoa(Array.from(segmentation.mask, (x) => String.fromCharCode(x)).join(''))")
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)


@pytest.fixture(scope="module")
def bundled() -> Iterator[Segmenter]:
    with Segmenter.load(threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("seed", "shape", "deep"), [(1, (512, 512), False), (2, (700, 430), True), (3, (90, 120), True)]
)
def test_a_dropped_png_gets_python_s_mask(
    seed: int, shape: tuple[int, int], deep: bool, started: Browser, bundled: Segmenter, tmp_path: Path
) -> None:
    pixels = make_radiograph(seed, *shape).pixels
    pixels = pixels * np.uint16(16) + np.uint16(seed) if deep else (pixels >> 4).astype(np.uint8)
    file = tmp_path / "made.png"
    Image.fromarray(pixels).save(file)
    assert drop(started, file) == "done", status(started)
    flipped = int((mask_of(started) != bundled(file).mask).sum())
    assert flipped <= LARGEST_FLIPPED_SHARE * pixels.size
    assert f"{shape[1]} x {shape[0]}" in status(started)
    assert started.messages == []
    assert [address for address in started.requests if not address.startswith(("file:", "blob:", "data:"))] == []


@pytest.mark.parametrize("kind", ["text", "colour", "constant", "cut"])
def test_what_cannot_be_segmented_is_said(kind: str, started: Browser, tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.png"
    if kind == "text":
        file.write_text("not a picture at all, but long enough to have a header's length")
    else:
        shape = (64, 64, 3) if kind == "colour" else (64, 64)
        noise = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        Image.fromarray(np.zeros_like(noise) if kind == "constant" else noise).save(file)
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    assert drop(started, file) == "failed"
    assert file.name in status(started)


def test_only_the_tested_package_is_taken(runtime_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="npm pack"):
        read_runtime(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not the npm package"):
        read_runtime(tmp_path)
    with tarfile.open(runtime_archive) as archive:
        archive.extractall(tmp_path, filter="data")
    assert read_runtime(tmp_path / "package") == read_runtime(runtime_archive)
    changed = tmp_path / "package" / "dist" / "ort.wasm.bundle.min.mjs"
    changed.write_bytes(changed.read_bytes() + b"//")
    with pytest.raises(InputError, match=f"is not that of {PACKAGE} {VERSION}"):
        read_runtime(tmp_path / "package")


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an ``npm`` of this shell script before all others; its arguments are pack NAME --pack-destination FOLDER."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_npm_brings_the_package(runtime_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", f'[ "$1 $2" = "pack {PACKAGE}@{VERSION}" ] && cp "{runtime_archive}" "$4"', monkeypatch)
    assert fetch_runtime() == read_runtime(runtime_archive)


def test_npm_that_fails_or_brings_something_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", "exit 1", monkeypatch)
    with pytest.raises(InputError, match=f"npm could not bring {PACKAGE} {VERSION}; try 'npm pack"):
        fetch_runtime()
    fake_npm(tmp_path / "other", f'echo no package > "$4/{PACKAGE}-{VERSION}.tgz"', monkeypatch)
    with pytest.raises(InputError, match="is not the npm package"):
        fetch_runtime()


def test_where_there_is_no_npm_the_other_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not installed; fetch the package elsewhere and name it with --ort"):
        fetch_runtime()


def test_fetching_and_naming_the_package_exclude_each_other(tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["web-demo", "-o", str(tmp_path), "--ort", str(tmp_path), "--fetch"])
    assert run.exit_code == 2
    assert "--fetch or --ort, not both" in run.output
