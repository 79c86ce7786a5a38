"""The radiographs of a parity check: what a file is compared on with the one that it was made from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cxredge.data.dataset import MANIFEST, open_dataset
from cxredge.evaluation.evaluate import DEFAULT_SPLITS
from cxredge.phantom import make_radiograph
from cxredge.radiograph import Radiograph, read_radiograph
from cxredge.runs.discovery import find_radiographs

MADE_RADIOGRAPHS = 8


def parity_radiographs(paths: Sequence[Path] = ()) -> list[Radiograph]:
    """Test rows of data sets, other radiographs, or made ones.

    Args:
        paths: data set folders, folders of radiographs, and files; without any, radiographs are made.

    Raises:
        DatasetError: a data set is inconsistent.
        InputError: a radiograph cannot be read.
    """
    if not paths:
        return [Radiograph(make_radiograph(seed).pixels) for seed in range(MADE_RADIOGRAPHS)]
    files: list[Path] = []
    for path in paths:
        if (path / MANIFEST).is_file():
            files += [case.image for case in open_dataset(path).split(*DEFAULT_SPLITS)]
        else:
            files += [target.source for target in find_radiographs([path], Path(os.devnull)).targets]
    return [read_radiograph(file) for file in files]
