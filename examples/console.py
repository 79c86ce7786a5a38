"""A console in a few dozen lines: an exposure is shown at once, and outlined as soon as its lungs are known.

``python examples/console.py [FILE...]`` shows radiographs, or made ones, one every two seconds. It needs tkinter, which
comes with most Pythons, and a display. Nothing waits for the network: the radiograph is handed to ``submit()``, and
the window's own thread, the only one that may draw, looks now and then whether the result is there.
"""

from __future__ import annotations

import itertools
import sys
import tkinter
from collections.abc import Iterator
from concurrent.futures import Future

import cv2
import numpy as np

from cxredge import CxredgeError, Radiograph, Segmentation, Segmenter, read_radiograph
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import grey_levels

SIDE = 640
ORANGE = "#ffaa00"


class Console:
    """A window with the newest exposure."""

    def __init__(self, window: tkinter.Tk, segmenter: Segmenter) -> None:
        self.window, self.segmenter = window, segmenter
        self.canvas = tkinter.Canvas(window, width=SIDE, height=SIDE, background="black", highlightthickness=0)
        self.status = tkinter.Label(window, anchor="w", font=("TkFixedFont", 11))
        self.canvas.pack()
        self.status.pack(fill="x")
        self.waiting: Future[Segmentation] | None = None

    def show(self, radiograph: Radiograph) -> None:
        """Show a new exposure and ask for its lungs; one that still waits is not needed any more."""
        if self.waiting is not None:
            self.waiting.cancel()
        height, width = radiograph.shape
        scale = min(1.0, SIDE / max(height, width))
        size = (round(width * scale), round(height * scale))
        header = f"P5 {size[0]} {size[1]} 255\n".encode()
        self.picture = tkinter.PhotoImage(data=header + grey_levels(radiograph, size, 255).tobytes())
        self.canvas.delete("all")
        self.canvas.create_image(0, 0, image=self.picture, anchor="nw")
        self.status["text"] = f"{width} x {height}, segmenting ..."
        self.waiting = self.segmenter.submit(radiograph)
        self.look(self.waiting, scale)

    def look(self, future: Future[Segmentation], scale: float) -> None:
        """Draw the result if it is there, else look again, unless another exposure has come."""
        if future is not self.waiting:
            return
        if not future.done():
            self.window.after(10, self.look, future, scale)
            return
        try:
            self.draw(future.result(), scale)
        except CxredgeError as error:
            self.status["text"] = str(error)

    def draw(self, result: Segmentation, scale: float) -> None:
        """Outline the lungs and say what they measure."""
        contours, _ = cv2.findContours(result.mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            points = (contour.reshape(-1, 2) * scale).ravel().tolist()
            self.canvas.create_polygon(points, outline=ORANGE, fill="", width=2)
        flags = ", ".join(result.flags) or "no flags"
        spent = sum(result.milliseconds.values())
        self.status["text"] = f"lungs {result.lung_area_fraction:.1%} of the image, {flags}, {spent:.0f} ms"


def exposures(paths: list[str]) -> Iterator[Radiograph]:
    """The radiographs of files, or made ones without end."""
    if paths:
        return map(read_radiograph, paths)
    return (Radiograph(make_radiograph(seed).pixels) for seed in itertools.count())


def main() -> None:
    """Open the window and show an exposure every two seconds."""
    with Segmenter.load() as segmenter:
        segmenter.warm_up()
        window = tkinter.Tk()
        window.title("cxredge")
        console, coming = Console(window, segmenter), exposures(sys.argv[1:])

        def expose() -> None:
            radiograph = next(coming, None)
            if radiograph is not None:
                console.show(radiograph)
                window.after(2000, expose)

        expose()
        window.mainloop()


if __name__ == "__main__":
    main()
