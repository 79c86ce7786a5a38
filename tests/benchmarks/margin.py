"""How much of the error is the width of a margin: Dice of masks that are grown or shrunk by whole pixels.

    python tests/benchmarks/margin.py $CXREDGE_DATA/jsrt $CXREDGE_DATA/nlm $CXREDGE_DATA/covid [--model MODEL]

A network that draws as one data set's readers do is a pixel off on another's, whose readers draw wider. The best
Dice over the margins is what a wider or narrower border alone can reach. For each set's test rows: the mean precision
and recall of the masks at 256x256, and the mean Dice by margin. MODEL is a model file or a checkpoint, else the
bundled one. It looks at the test rows, so nothing may be chosen by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge import Segmenter
from cxredge.data.dataset import open_dataset
from cxredge.evaluation.evaluate import DEFAULT_SPLITS
from cxredge.evaluation.scoring import dice
from cxredge.libraries.open_cv import cv2

MARGINS = (-2, -1, 0, 1, 2)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)

Mask = NDArray[np.bool_]


def grown(mask: Mask, margin: int) -> Mask:
    """The mask ``(H, W)`` with ``margin`` pixels more around it, or fewer."""
    change = cv2.dilate if margin > 0 else cv2.erode
    return np.asarray(change(mask.astype(np.uint8), CROSS, iterations=abs(margin)), bool) if margin else mask


def cases(folder: Path, segmenter: Segmenter) -> Iterator[tuple[Mask, Mask]]:
    """Found and true mask of each test row that has a lung mask of two lungs."""
    size = segmenter.contract.input_size
    for case in open_dataset(folder).cases:
        truth = case.label(case.mask, size)
        complete = "0" not in (case.row.get("left_lung"), case.row.get("right_lung"))
        if case.split in DEFAULT_SPLITS and truth is not None and complete:
            yield segmenter(case.radiograph()).mask, truth


def main() -> None:
    """Print a line for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    with Segmenter.load(arguments.model) as segmenter:
        for folder in arguments.datasets:
            pairs = list(cases(folder, segmenter))
            precision = np.mean([(found & truth).sum() / found.sum() for found, truth in pairs])
            recall = np.mean([(found & truth).sum() / truth.sum() for found, truth in pairs])
            by_margin = {margin: np.mean([dice(grown(f, margin), t) for f, t in pairs]) for margin in MARGINS}
            dices = "  ".join(f"{margin:+d} px {value:.4f}" for margin, value in by_margin.items())
            print(f"{folder.name} ({len(pairs)}): precision {precision:.3f}, recall {recall:.3f}; Dice {dices}")


if __name__ == "__main__":
    main()
