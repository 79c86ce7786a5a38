"""The example console shows an exposure at once, stays alive while its lungs are sought, and outlines them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

CONSOLE = Path(__file__).parents[2] / "examples" / "console.py"
DRIVER = """
import importlib.util, numpy, sys, time
from PIL import ImageGrab
from cxredge import Radiograph, Segmenter
from cxredge.phantom import make_radiograph
import tkinter

spec = importlib.util.spec_from_file_location("console", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
window = tkinter.Tk()
ticks = []

def tick():
    ticks.append(time.perf_counter())
    window.after(1, tick)

def settle(*texts):
    until = time.monotonic() + 60
    while not any(text in console.status["text"] for text in texts) and time.monotonic() < until:
        window.update()
        time.sleep(0.001)
    window.update()
    return console.status["text"]

with Segmenter.load(threads=1) as segmenter:
    console = module.Console(window, segmenter)
    tick()
    superseded = Radiograph(make_radiograph(1, 700, 700).pixels)
    for _ in range(3):
        console.show(superseded)
    console.show(Radiograph(make_radiograph(5, 900, 800).pixels))
    before, at_once = len(ticks), console.status["text"]
    print(at_once, settle("lungs", ":"), len(ticks) - before, sep="; ")
    numpy.save(sys.argv[3], segmenter(make_radiograph(5, 900, 800).pixels).mask)
    ImageGrab.grab(xdisplay="", bbox=(0, 0, window.winfo_width(), window.winfo_height())).save(sys.argv[2])
    console.show(Radiograph(make_radiograph(5, 64, 64).pixels * 0))
    print(settle("equal"))
"""


@pytest.fixture
def display() -> Iterator[str]:
    """A display of its own, which nobody looks at."""
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    server = shutil.which("Xvfb")
    if server is None or not features.check("xcb"):
        pytest.skip("Xvfb is not installed (Debian: xvfb), or Pillow cannot read its screen")
    read, write = os.pipe()
    with subprocess.Popen(
        [server, "-displayfd", str(write), "-screen", "0", "800x800x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    ) as running:
        os.close(write)
        with os.fdopen(read) as answer:
            yield f":{int(answer.readline())}"
        running.terminate()


def test_an_exposure_is_shown_and_outlined(display: str, tmp_path: Path) -> None:
    screenshot, mask = tmp_path / "console.png", tmp_path / "mask.npy"
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(CONSOLE), str(screenshot), str(mask)],
        env={**os.environ, "DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    waiting, shown, ticks = first.split("; ")
    assert waiting == "800 x 900, segmenting ..."
    assert shown.startswith("lungs ")
    assert int(ticks) >= 5, "the window did not go on while the lungs were sought"
    assert second == "all pixels are equal, there is nothing to see"
    pixels = np.asarray(Image.open(screenshot).convert("RGB")).astype(int)[:640, :569]
    assert pixels.std() > 30, "the radiograph is shown"
    lungs = cv2.resize(np.load(mask).astype(np.float32), (569, 640), interpolation=cv2.INTER_AREA) > 0.5
    drawn = (pixels == (255, 170, 0)).all(axis=2)
    band = cv2.morphologyEx(lungs.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8)) > 0
    edge = cv2.morphologyEx(lungs.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert not (drawn & ~band).any(), "nothing is outlined but these lungs"
    assert (edge & near).sum() > 0.98 * edge.sum(), "all of them is outlined"
