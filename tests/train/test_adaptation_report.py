"""What a checkpoint's adaptation looks like, on a tiny run that has adapted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="figures need the extra 'evaluate'")

from cxredge.data.dataset import Dataset, open_dataset
from cxredge.errors import BackendError, CheckpointError, DatasetError
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.runs.results import mask_png
from cxredge_train.adaptation_report import (
    COLUMNS,
    ROWS,
    Adapted,
    adapt,
    draw_adaptation,
    draw_intensities,
    draw_panel,
    lung_intensities,
)
from cxredge_train.checkpoint import load_trained
from cxredge_train.config import DataConfig, RunConfig, ScheduleConfig, TrainingConfig
from cxredge_train.networks import Domain, NetworkConfig, a_da
from cxredge_train.training import train

SIZE = 64
CONFIG = TrainingConfig(
    name="tiny",
    network=NetworkConfig(width=4, input_size=SIZE, shared_code_trunk=True),
    data=DataConfig(intra=("normal",), inter=("sick",)),
    schedule=ScheduleConfig(supervised=1, adaptation=2, distillation=0),
    run=RunConfig(validate_every=3, save_every=3),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_dataset(folder: Path, seeds: range, *, masks: bool) -> None:
    rows = ["name,split"]
    for kind in ("images", "masks") if masks else ("images",):
        (folder / kind).mkdir(parents=True)
    for seed in seeds:
        made = make_radiograph(seed, SIZE, SIZE)
        cv2.imwrite(str(folder / "images" / f"p{seed}.png"), made.pixels)
        if masks:
            (folder / "masks" / f"p{seed}.png").write_bytes(mask_png(made.lungs))
        rows.append(f"p{seed},{('train', 'val', 'test')[seed % 3]}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of made radiographs, ``normal`` with lung masks and ``sick`` without."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "normal", range(6), masks=True)
    write_dataset(root / "sick", range(6, 12), masks=False)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A run of three iterations, the last two of which adapt."""
    folder = tmp_path_factory.mktemp("run") / "adapted"
    assert train(CONFIG, data_root, folder).finished
    return folder


@pytest.fixture
def normal(data_root: Path) -> Dataset:
    return open_dataset(data_root / "normal")


@pytest.fixture
def sick(data_root: Path) -> Dataset:
    return open_dataset(data_root / "sick")


@pytest.fixture
def hand_made(normal: Dataset) -> Adapted:
    """Three cases: with truth, with a predicted mask only, with neither."""
    upper = np.arange(SIZE)[:, None].repeat(SIZE, 1) < SIZE // 2
    inputs = np.where(upper, -0.5, 0.5).astype(np.float32)[None].repeat(3, 0)
    nothing = np.zeros((SIZE, SIZE), bool)
    return Adapted(
        normal.cases[:3], inputs, inputs - 0.25, [~upper, ~upper, nothing], [upper] * 3, [upper, None, nothing]
    )


def test_both_pictures_are_drawn_for_labelled_and_unlabelled_cases(
    checkpoint: Path, normal: Dataset, sick: Dataset, tmp_path: Path
) -> None:
    for dataset in (normal, sick):
        files = draw_adaptation(checkpoint, dataset, tmp_path / "figures", ("val", "test"))
        assert [file.name for file in files] == [f"adaptation-{dataset.name}.png", f"intensity-{dataset.name}.png"]
        for file in files:
            assert cv2.imread(str(file)).std() > 10


def test_level_of_shift_stands_in_the_names(checkpoint: Path, sick: Dataset, tmp_path: Path) -> None:
    files = draw_adaptation(checkpoint, sick, tmp_path, ("test",), "harsh")
    assert [file.name for file in files] == ["adaptation-sick-harsh.png", "intensity-sick-harsh.png"]


def test_images_are_those_of_the_checkpoints_adaptation_code(checkpoint: Path, sick: Dataset) -> None:
    trained = load_trained(checkpoint)
    assert trained.adaptation_code.abs().sum() > 0
    adapted = adapt(trained, sick.cases, "none")
    for case, given, image in zip(sick.cases, adapted.inputs, adapted.images, strict=True):
        expected = network_input(case.radiograph(), SIZE)
        np.testing.assert_array_equal(given, expected)
        with torch.inference_mode():
            code = a_da(trained.adaptation_code[None], Domain.INTRA)
            wanted = trained.generator(torch.from_numpy(expected)[None, None], code)
        np.testing.assert_allclose(image, wanted[0, 0].numpy(), atol=1e-4)


def test_shift_changes_the_input_and_not_the_truth(checkpoint: Path, normal: Dataset) -> None:
    trained = load_trained(checkpoint)
    plain, noisy = (adapt(trained, normal.split("test"), level) for level in ("none", "harsh"))
    assert np.abs(plain.inputs - noisy.inputs).mean() > 0.1
    for one, other in zip(plain.truths, noisy.truths, strict=True):
        assert one is not None
        np.testing.assert_array_equal(one, other)


def test_lung_intensity_is_that_of_the_truth_or_else_of_the_prediction(hand_made: Adapted) -> None:
    assert lung_intensities(hand_made.inputs, hand_made) == pytest.approx([-0.5, 0.5])
    assert lung_intensities(hand_made.images, hand_made) == pytest.approx([-0.75, 0.25])


def test_boxes_stand_before_and_after_adaptation(hand_made: Adapted) -> None:
    (axes,) = draw_intensities(hand_made, "made").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["input", "adapted to INTRA"]
    assert axes.get_title() == "made, 2 cases"
    low, high = axes.get_ylim()
    assert low < -0.75 < 0.5 < high


def test_a_set_in_which_no_lung_is_found_is_drawn_without_boxes(hand_made: Adapted) -> None:
    nothing = [np.zeros((SIZE, SIZE), bool)] * 3
    empty = replace(hand_made, direct=nothing, truths=[None] * 3)
    (axes,) = draw_intensities(empty, "made").axes
    assert axes.get_title() == "made, 0 cases"


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (ROWS, ROWS), (20, ROWS)])
def test_panel_has_a_row_a_case_up_to_its_limit(hand_made: Adapted, count: int, rows: int) -> None:
    many = Adapted(
        hand_made.cases[:1] * count,
        hand_made.inputs[:1].repeat(count, 0),
        hand_made.images[:1].repeat(count, 0),
        hand_made.direct[:1] * count,
        hand_made.indirect[:1] * count,
        hand_made.truths[:1] * count,
    )
    axes = draw_panel(many, "made").axes
    assert len(axes) == rows * len(COLUMNS)
    assert tuple(one.get_title() for one in axes[: len(COLUMNS)]) == COLUMNS


def test_checkpoint_that_has_not_adapted_is_refused(data_root: Path, sick: Dataset, tmp_path: Path) -> None:
    train(CONFIG, data_root, tmp_path / "run", stop=lambda: True)
    with pytest.raises(BackendError, match="has not reached domain adaptation"):
        draw_adaptation(tmp_path / "run", sick, tmp_path / "figures", ("test",))
    assert not (tmp_path / "figures").exists()


def test_folder_without_a_checkpoint_is_refused(sick: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        draw_adaptation(tmp_path, sick, tmp_path, ("test",))


def test_damaged_image_is_named(checkpoint: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "broken", range(2, 3), masks=False)
    dataset = open_dataset(tmp_path / "broken")
    (tmp_path / "broken" / "images" / "p2.png").write_bytes(b"garbage")
    with pytest.raises(DatasetError, match=r"images/p2\.png"):
        draw_adaptation(checkpoint, dataset, tmp_path, ("test",))
