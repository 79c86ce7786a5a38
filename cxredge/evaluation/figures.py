"""Pictures of an evaluation: scores as bars (the paper's Fig. 5), contours of typical cases (Fig. 6 and 7).

Needs matplotlib (extra ``evaluate``). Figures are drawn on canvases of their own, without pyplot, so
that drawing changes nothing for others in the process. Every file is written whole and replaces its
forerunner.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cxredge.errors import OutputError
from cxredge.evaluation.evaluate import DICE, TPR, TPR_INSIDE, Score, Summary, read_label
from cxredge.evaluation.scoring import bootstrap_interval
from cxredge.evaluation.shift import SHIFTS, Level, shifted
from cxredge.libraries.open_cv import cv2
from cxredge.preprocessing import grey_levels
from cxredge.radiograph import Radiograph
from cxredge.runs.results import write_atomically

BARS = "bars.png"
TITLES = {DICE: "Dice", TPR: "TPR", TPR_INSIDE: "TPR inside the lung"}
LEVEL_COLOURS: dict[Level, str] = {"none": "#77aadd", "weak": "#eedd88", "harsh": "#ee8866"}
CLUSTER = 0.8
"""Width of the bars of one data set, of a distance of 1 to the next."""
INCHES_A_CLUSTER = 1.8
DOTS_PER_INCH = 100
CASES = 3
"""Cases in each row of a panel."""
SIDE = 480
"""Longer side of a case's picture in pixels."""
NAME_LENGTH = 30
"""Longer names are cut in titles."""

Colour = tuple[int, int, int]
TRUTH: Colour = (0, 200, 0)
PREDICTION: Colour = (255, 150, 0)
INFECTION: Colour = (235, 30, 30)
CONTOURS = {"truth": TRUTH, "prediction": PREDICTION, "infection label": INFECTION}


def draw_figures(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Draw every figure of an evaluation.

    Args:
        summaries: of each data set and level of shift; without any, nothing is drawn.
        folder: where ``bars.png`` and ``cases-DATASET-LEVEL.png`` go; created.

    Returns:
        The files, in the order in which they were written.

    Raises:
        DatasetError: a label cannot be read.
        OutputError: a file cannot be written.
    """
    if not summaries:
        return []
    files = [write_figure(draw_bars(summaries), folder / BARS)]
    for summary in summaries:
        file = folder / f"cases-{summary.dataset}-{summary.level}.png"
        files.append(write_figure(draw_cases(summary), file))
    return files


def write_figure(figure: Figure, file: Path) -> Path:
    """Write a figure as PNG; returns ``file``.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file.parent}: cannot be written: {error.strerror or error}") from error
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(file, buffer.getvalue())
    return file


def draw_bars(summaries: Sequence[Summary]) -> Figure:
    """Mean of each measure as bars by data set and level, with the 95 % bootstrap interval of the mean."""
    having = {measure: [summary for summary in summaries if len(summary.values(measure))] for measure in TITLES}
    having = {measure: some for measure, some in having.items() if some}
    clusters = [len(datasets_of(some)) for some in having.values()]
    figure = Figure((1.5 + INCHES_A_CLUSTER * sum(clusters), 4.0), DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(1, len(having), sharey=True, squeeze=False, width_ratios=clusters)
    for (measure, some), axes in zip(having.items(), grid[0], strict=True):
        draw_measure(axes, measure, some)
    handles = [Line2D([], [], color=LEVEL_COLOURS[level], linewidth=8, label=level) for level in levels_of(summaries)]
    figure.legend(handles=handles, title="shift", loc="outside right upper", frameon=False)
    return figure


def draw_measure(axes: Axes, measure: str, summaries: Sequence[Summary]) -> None:
    """Bars of one measure; every one of ``summaries`` has it."""
    levels, datasets = levels_of(summaries), datasets_of(summaries)
    width = CLUSTER / len(levels)
    for summary in summaries:
        values = summary.values(measure)
        mean, (low, high) = float(values.mean()), bootstrap_interval(values)
        place = datasets.index(summary.dataset) + width * (levels.index(summary.level) - (len(levels) - 1) / 2)
        axes.bar(place, mean, 0.9 * width, color=LEVEL_COLOURS[summary.level])
        axes.errorbar(place, mean, [[max(mean - low, 0.0)], [max(high - mean, 0.0)]], color="black", capsize=3)
        axes.text(place, 0.02, f"{mean:.3f}", rotation=90, ha="center", va="bottom")
    axes.set_title(TITLES[measure])
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(datasets)), [shortened(dataset) for dataset in datasets], parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)


def levels_of(summaries: Sequence[Summary]) -> list[Level]:
    """Levels of shift that occur, the weakest first."""
    return [level for level in SHIFTS if any(summary.level == level for summary in summaries)]


def datasets_of(summaries: Sequence[Summary]) -> list[str]:
    """Names of the data sets that occur, in their order."""
    return list(dict.fromkeys(summary.dataset for summary in summaries))


def draw_cases(summary: Summary) -> Figure:
    """Panel of the worst, the median and the best cases, a row each, with contours; the shifted image under shift."""
    rows = typical_cases(summary)
    columns = max(len(scores) for scores in rows.values())
    figure = Figure((0.6 + 3.2 * columns, 0.9 + 3.6 * len(rows)), DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (label, scores), line in zip(rows.items(), grid, strict=True):
        for score, axes in zip(scores, line, strict=True):
            show_picture(axes, case_picture(score, summary.level), case_title(score))
        line[0].set_ylabel(label, fontsize="large")
    figure.suptitle(f"{shortened(summary.dataset)}, shift: {summary.level}", parse_math=False)
    shown = [score.case for scores in rows.values() for score in scores]
    labelled = {TRUTH: any(case.mask for case in shown), INFECTION: any(case.infection for case in shown)}
    add_contour_legend(figure, {label: colour for label, colour in CONTOURS.items() if labelled.get(colour, True)})
    return figure


def typical_cases(summary: Summary) -> dict[str, list[Score]]:
    """Up to three cases each for ``worst``, ``median`` and ``best``, none twice; only ``worst`` of fewer than three.

    Cases are ranked by Dice, or where no case has it by the true-positive ratio, from the worst up.
    """
    measure = DICE if len(summary.values(DICE)) else TPR
    ranked = sorted(
        (score for score in summary.scores if measure in score.measures),
        key=lambda score: (score.measures[measure], score.case.name),
    )
    count = min(CASES, len(ranked) // 3)
    if count == 0:
        return {"worst": ranked}
    middle = (len(ranked) - count) // 2
    return {"worst": ranked[:count], "median": ranked[middle : middle + count], "best": ranked[-count:]}


def case_title(score: Score) -> str:
    """Name and scores of a case in two lines."""
    titles = {DICE: "Dice", TPR: "TPR", TPR_INSIDE: "inside"}
    found = [f"{title} {score.measures[measure]:.2f}" for measure, title in titles.items() if measure in score.measures]
    return f"{shortened(score.case.name)}\n{', '.join(found)}"


def shortened(name: str) -> str:
    """A name short enough for a title."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def case_picture(score: Score, level: Level) -> NDArray[np.uint8]:
    """The image as the model saw it, ``(H, W, 3)`` RGB, with the contours of the case's masks."""
    radiograph = shifted(score.case.radiograph(), level, score.case.name, score.mask.shape[0])
    truth, infection = (read_label(path, score.mask, level) for path in (score.case.mask, score.case.infection))
    return outlined(grey_picture(radiograph), [(infection, INFECTION), (truth, TRUTH), (score.mask, PREDICTION)])


def grey_picture(radiograph: Radiograph) -> NDArray[np.uint8]:
    """A radiograph as grey ``(H, W)`` with a longer side of 480 pixels, from black to white as a person sees it."""
    height, width = radiograph.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = grey_levels(radiograph, size if scale < 1 else (width, height), 255)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def outlined(
    grey: NDArray[np.uint8], masks: Sequence[tuple[NDArray[np.bool_] | None, Colour]], thickness: int = 2
) -> NDArray[np.uint8]:
    """RGB picture of ``grey`` ``(H, W)`` with the contours of masks of any size, the last on top."""
    height, width = grey.shape
    picture: NDArray[np.uint8] = np.stack([grey] * 3, axis=-1)
    for mask, colour in masks:
        if mask is not None:
            scaled = cv2.resize(
                np.where(mask, 255, 0).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR
            )
            inside = (scaled > 127).astype(np.uint8)
            contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, contours, -1, colour, thickness)
    return picture


def show_picture(axes: Axes, picture: NDArray[np.uint8], title: str = "") -> None:
    """Show a grey or RGB picture without ticks."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize="small", parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def add_contour_legend(figure: Figure, contours: dict[str, Colour]) -> None:
    """Say below the pictures what the contours are."""
    handles = [
        Line2D([], [], color="#{:02x}{:02x}{:02x}".format(*colour), label=label) for label, colour in contours.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
