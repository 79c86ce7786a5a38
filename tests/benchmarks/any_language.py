"""How near a model with its processing inside is to cxredge, radiographs by radiographs.

    python tests/benchmarks/any_language.py LUNGS.onnx $CXREDGE_DATA/{scans,jsrt,nlm,covid} [--model MODEL]

LUNGS.onnx is what ``cxredge export MODEL --with-processing`` wrote, MODEL the bundled model unless another is named.
For each data set (its test rows) or folder of radiographs, and for 100 made ones of any shape: mask pixels, those that
differ from cxredge's where that is not cleaned either, those that the caller's cleaning changes, and those that
differ from cxredge's final mask after it; and the largest difference of a logit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxredge.bundle import bundled_model
from cxredge.evaluation.parity_set import parity_radiographs
from cxredge.libraries.open_cv import cv2
from cxredge.phantom import make_radiograph
from cxredge.postprocessing import fill_holes, largest_components, lung_mask
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model
from cxredge_export.parity import in_onnxruntime
from cxredge_export.processing_parity import raw_image, whole_in_onnxruntime

MADE = 100
SIDES = (32, 1200)


def made_radiographs() -> list[Radiograph]:
    """Made radiographs whose sides are drawn at random."""
    sides = np.random.default_rng(0).integers(*SIDES, (MADE, 2))
    return [Radiograph(make_radiograph(seed, int(h), int(w)).pixels) for seed, (h, w) in enumerate(sides)]


def main() -> None:
    """Print a row of the table for each kind of radiographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whole", type=Path)
    parser.add_argument("radiographs", type=Path, nargs="*")
    parser.add_argument("--model", type=Path, default=bundled_model())
    arguments = parser.parse_args()
    bare, contract = read_model(arguments.model)
    network = in_onnxruntime(bare)
    whole = whole_in_onnxruntime(read_model(arguments.whole, with_processing=True)[0])
    largest = 0.0

    def row(name: str, radiographs: Sequence[Radiograph]) -> str:
        nonlocal largest
        counts = np.zeros(4, np.int64)
        for radiograph in radiographs:
            logits = network(network_input(radiograph, contract.input_size)[None, None])[0, 0]
            mask, found = whole(raw_image(radiograph))
            inside = mask.astype(bool)
            cleaned = fill_holes(largest_components(inside))
            height, width = radiograph.shape
            differing = (
                inside != (cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0),
                inside != cleaned,
                cleaned != lung_mask(logits, radiograph.shape),
            )
            counts += [mask.size, *(int(pixels.sum()) for pixels in differing)]
            largest = max(largest, float(np.abs(found - logits).max()))
        return f"| {name} | {len(radiographs)} | {' | '.join(map(str, counts))} |"

    print("| radiographs | images | mask pixels | flipped | cleaning | after cleaning |")
    print("|---|---|---|---|---|---|")
    for path in arguments.radiographs:
        print(row(path.name, parity_radiographs([path])))
    print(row("made", made_radiographs()))
    print(f"largest difference of a logit: {largest:.1e}")


if __name__ == "__main__":
    main()
