"""What domain adaptation does to radiographs: panels (the paper's Fig. 4a) and lung intensities (Fig. 5, left).

An exported model has the direct path only, so these pictures need a checkpoint. Needs matplotlib
(extra ``evaluate``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cxredge.data.dataset import Case, Dataset
from cxredge.errors import BackendError, CxredgeError, DatasetError
from cxredge.evaluation.figures import (
    CONTOURS,
    DOTS_PER_INCH,
    PREDICTION,
    TRUTH,
    add_contour_legend,
    grey_picture,
    outlined,
    shortened,
    show_picture,
    write_figure,
)
from cxredge.evaluation.shift import Level, shifted
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_train.checkpoint import Trained, load_trained
from cxredge_train.networks import Domain, a_da, a_seg, a_self
from cxredge_train.validation import BATCH, expanded, segment

ROWS = 6
"""Cases of a panel, evenly spread over the rows of the data set."""
COLUMNS = ("input", "adapted to INTRA", "direct", "indirect")
BOXES = ("input", "adapted to INTRA")
BOX_COLOUR = "#77aadd"


@dataclass(frozen=True)
class Adapted:
    """Cases with what a checkpoint makes of them, all at network size.

    Attributes:
        cases: what was adapted.
        inputs: ``(N, H, W)`` network inputs in [-1, 1].
        images: ``(N, H, W)`` the inputs adapted to INTRA, G(u, a_da^X), about [-1, 1].
        direct: ``N`` masks of G(u, a_self), or of G(u, a_seg) before stage 2.
        indirect: ``N`` masks of G(G(u, a_da^X), a_seg).
        truths: ``N`` true lung masks, ``None`` where there is none.
    """

    cases: tuple[Case, ...]
    inputs: NDArray[np.float32]
    images: NDArray[np.float32]
    direct: list[NDArray[np.bool_]]
    indirect: list[NDArray[np.bool_]]
    truths: list[NDArray[np.bool_] | None]


def draw_adaptation(
    checkpoint: Path, dataset: Dataset, folder: Path, splits: Sequence[str], level: Level = "none"
) -> list[Path]:
    """Draw how a checkpoint adapts a data set to INTRA; it needs no labels.

    Args:
        checkpoint: folder of a run that has reached domain adaptation.
        dataset: of any domain.
        folder: where ``adaptation-DATASET.png`` and ``intensity-DATASET.png`` go, under shift
            ``…-DATASET-LEVEL.png``; created.
        splits: rows to adapt.
        level: of distribution shift.

    Returns:
        The files.

    Raises:
        BackendError: the checkpoint has not adapted.
        CheckpointError: it is missing or damaged.
        DatasetError: no such rows, or an image or mask that cannot be read.
        OutputError: a file cannot be written.
    """
    trained = load_trained(checkpoint)
    if not trained.adapted:
        raise BackendError(f"{checkpoint}: has nothing to show, its training has not reached domain adaptation")
    adapted = adapt(trained, dataset.split(*splits), level)
    name = dataset.name if level == "none" else f"{dataset.name}-{level}"
    title = f"{shortened(dataset.name)}, shift: {level}"
    return [
        write_figure(draw_panel(adapted, title), folder / f"adaptation-{name}.png"),
        write_figure(draw_intensities(adapted, title), folder / f"intensity-{name}.png"),
    ]


@torch.inference_mode()
def adapt(trained: Trained, cases: tuple[Case, ...], level: Level) -> Adapted:
    """Adapt ``cases`` to INTRA, and segment them on both paths."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator, size = trained.generator.to(device), trained.config.network.input_size
    inputs = torch.stack([shifted_input(case, level, size) for case in cases])
    to_intra = a_da(trained.adaptation_code.to(device)[None], Domain.INTRA)
    to_mask = a_self(trained.self_code.to(device)[None]) if trained.distilled else a_seg()
    images = torch.cat(
        [generator(batch.to(device), expanded(to_intra, len(batch))).float().cpu() for batch in inputs.split(BATCH)]
    )
    return Adapted(
        cases,
        inputs[:, 0].numpy(),
        images[:, 0].numpy(),
        segment(generator, inputs, to_mask, device),
        segment(generator, images, a_seg(), device),
        [case.label(case.mask, size) for case in cases],
    )


def shifted_input(case: Case, level: Level, size: int) -> Tensor:
    """Network input ``(1, size, size)`` of a case at a level of shift."""
    radiograph = case.radiograph()
    try:
        return torch.from_numpy(network_input(shifted(radiograph, level, case.name, size), size))[None]
    except CxredgeError as error:
        raise DatasetError(f"{case.image}: {error}") from error


def draw_panel(adapted: Adapted, title: str) -> Figure:
    """A row a case: input, adapted to INTRA, and the input with the contours of the direct and indirect masks."""
    count = min(ROWS, len(adapted.cases))
    chosen = np.linspace(0, len(adapted.cases) - 1, count).round().astype(int)
    figure = Figure((0.4 + 2.4 * len(COLUMNS), 0.9 + 2.5 * count), DOTS_PER_INCH, layout="constrained")
    for index, line in zip(chosen, figure.subplots(count, len(COLUMNS), squeeze=False), strict=True):
        grey = picture(adapted.inputs[index])
        masks = [
            outlined(grey, [(adapted.truths[index], TRUTH), (mask, PREDICTION)])
            for mask in (adapted.direct[index], adapted.indirect[index])
        ]
        for axes, shown in zip(line, (grey, picture(adapted.images[index]), *masks), strict=True):
            show_picture(axes, shown)
        line[0].set_ylabel(shortened(adapted.cases[index].name), fontsize="small", parse_math=False)
        if index == chosen[0]:
            for axes, column in zip(line, COLUMNS, strict=True):
                axes.set_title(column)
    figure.suptitle(title, parse_math=False)
    labelled = any(adapted.truths[index] is not None for index in chosen)
    add_contour_legend(figure, {k: CONTOURS[k] for k in (("truth", "prediction") if labelled else ("prediction",))})
    return figure


def picture(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image ``(H, W)`` as grey, black at -1 and white at 1; what lies beyond is cut."""
    return grey_picture(Radiograph(((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)))


def draw_intensities(adapted: Adapted, title: str) -> Figure:
    """Mean lung intensity of every case before and after adaptation as box plots, each case a thin line."""
    before, after = (lung_intensities(images, adapted) for images in (adapted.inputs, adapted.images))
    figure = Figure((4.0, 4.5), DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], [before, after], color="0.8", linewidth=0.5, zorder=1)
    boxes = axes.boxplot([before, after], tick_labels=BOXES, widths=0.4, patch_artist=True, zorder=2)
    for box in boxes["boxes"]:
        box.set_facecolor(BOX_COLOUR)
    axes.set_ylabel("mean lung intensity (-1 black, 1 white)")
    axes.set_title(f"{title}, {len(before)} cases", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def lung_intensities(images: NDArray[np.float32], adapted: Adapted) -> NDArray[np.float64]:
    """Mean of each of ``images`` ``(N, H, W)`` inside the lungs: the true ones, or those of the direct path.

    The lungs are the same before and after adaptation; a case without lungs is left out.
    """
    lungs = [direct if truth is None else truth for truth, direct in zip(adapted.truths, adapted.direct, strict=True)]
    found = [float(image[lung].mean()) for image, lung in zip(images, lungs, strict=True) if lung.any()]
    return np.array(found)
