"""What FP16 and INT8 cost on labelled radiographs that the model was neither trained nor calibrated on.

    python tests/benchmarks/precision.py DATASET... --typed FILE... [--model FILE] [--shift LEVEL] [--json FILE]

DATASETS are scored as ``cxredge evaluate`` scores them. ``--typed`` names models that ``cxredge export --precision
fp16`` and ``cxredge calibrate`` made of ``--model`` (the bundled one). Each runs in ONNX Runtime, an INT8 model also
in OpenVINO, and also with its other layers in FP16, as an engine has them. A drop is the FP32 model's mean in ONNX
Runtime minus the other's. The exit code is 1 where a mean falls by more than 0.002.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from cxredge import Segmenter, bundled_model
from cxredge.backends import BackendName
from cxredge.data.dataset import Dataset, open_dataset
from cxredge.engine.order import model_contract
from cxredge.engine.typed_model import half_typed_later, write_half
from cxredge.evaluation.evaluate import DICE, TPR, Summary, evaluate
from cxredge.evaluation.scoring import dice
from cxredge.evaluation.shift import Level

LARGEST_DROP = 0.002
"""What the mean Dice and the mean TPR of a data set may lose."""


@dataclass(frozen=True)
class Contestant:
    """A typed model on a backend.

    Attributes:
        label: what it is called in the table.
        backend: that runs it.
        file: of the model.
    """

    label: str
    backend: BackendName
    file: Path


@dataclass(frozen=True)
class Row:
    """What one contestant loses on one data set.

    Attributes:
        dataset: its name.
        contestant: label and backend.
        cases: radiographs.
        dice: mean Dice of the lungs; ``None`` without labels.
        dice_drop: mean fall of it against FP32.
        worst_dice_drop: largest fall of a single radiograph.
        tpr_drop: mean fall of the true-positive ratio; ``None`` without a labelled abnormality.
        disagreement: mean of 1 - Dice between the masks of both.
        flipped_share: of the mask pixels.
    """

    dataset: str
    contestant: str
    cases: int
    dice: float | None
    dice_drop: float | None
    worst_dice_drop: float | None
    tpr_drop: float | None
    disagreement: float
    flipped_share: float

    @property
    def too_much(self) -> bool:
        """Whether a mean falls by more than is allowed."""
        return any(drop is not None and drop > LARGEST_DROP for drop in (self.dice_drop, self.tpr_drop))


def contestants(files: Sequence[Path], folder: Path) -> Iterator[Contestant]:
    """Every model on every backend, and INT8 models as engines have them; those are made in ``folder``."""
    for number, file in enumerate(files):
        contract = model_contract(file)
        yield Contestant(contract.precision, "onnxruntime", file)
        if contract.precision != "int8":
            continue
        if find_spec("openvino") is not None:
            yield Contestant("int8", "openvino", file)
        if half_typed_later(contract):
            half = folder / f"{number}.onnx"
            yield Contestant("int8, the rest fp16", "onnxruntime", write_half(file, half))


def scored(file: Path, backend: BackendName, datasets: Sequence[Dataset], level: Level) -> list[Summary]:
    """Scores and masks of one model on all data sets."""
    with Segmenter.load(file, backend=backend, threads=1) as segmenter:
        return [evaluate(segmenter, dataset, level=level) for dataset in datasets]


def row(name: str, before: Summary, after: Summary) -> Row:
    """What is lost from one summary to the other."""
    dice_falls, tpr_falls = (before.values(measure) - after.values(measure) for measure in (DICE, TPR))
    pairs = [(one.mask, other.mask) for one, other in zip(before.scores, after.scores, strict=True)]
    return Row(
        dataset=before.dataset,
        contestant=name,
        cases=len(pairs),
        dice=float(after.values(DICE).mean()) if len(dice_falls) else None,
        dice_drop=float(dice_falls.mean()) if len(dice_falls) else None,
        worst_dice_drop=float(dice_falls.max()) if len(dice_falls) else None,
        tpr_drop=float(tpr_falls.mean()) if len(tpr_falls) else None,
        disagreement=1 - float(np.mean([dice(one, other) for one, other in pairs])),
        flipped_share=float(np.mean([(one != other).mean() for one, other in pairs])),
    )


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table("data set", "model", title="against FP32 in ONNX Runtime", title_justify="left")
    for title in ("Dice", "Dice drop", "worst case", "TPR drop", "1 - Dice of both", "flipped pixels"):
        table.add_column(title, justify="right")
    for one in rows:
        figures = (one.dice_drop, one.worst_dice_drop, one.tpr_drop)
        table.add_row(
            f"{one.dataset} ({one.cases})",
            one.contestant,
            "–" if one.dice is None else f"{one.dice:.4f}",
            *("–" if figure is None else f"{figure:+.5f}" for figure in figures),
            f"{one.disagreement:.5f}",
            f"{one.flipped_share:.1e}",
        )
    Console(width=130).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--typed", type=Path, action="append", required=True)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--shift", choices=("none", "weak", "harsh"), default="none")
    parser.add_argument("--json", type=Path, dest="file")
    arguments = parser.parse_args()
    datasets = [open_dataset(folder) for folder in arguments.datasets]
    before = scored(arguments.model, "onnxruntime", datasets, arguments.shift)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for one in contestants(arguments.typed, Path(folder)):
            after = scored(one.file, one.backend, datasets, arguments.shift)
            rows += [row(f"{one.label}, {one.backend}", *pair) for pair in zip(before, after, strict=True)]
    print_rows(sorted(rows, key=lambda one: one.dataset))
    if arguments.file:
        arguments.file.write_text(json.dumps([asdict(one) for one in rows], indent=2))
    if wrong := [f"{one.contestant} on {one.dataset}" for one in rows if one.too_much]:
        sys.exit(f"more than {LARGEST_DROP} is lost by {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
