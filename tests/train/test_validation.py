"""Validation scores each path of the averaged networks, keeps the mean style, and draws a panel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxredge.evaluation.scoring import dice
from cxredge.postprocessing import lung_mask
from cxredge_train.batches import TrainingData
from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Codes, Domain, a_seg, a_self
from cxredge_train.validation import FOUND, TRUTH, grey, outlined, segment, validate

pytestmark = pytest.mark.usefixtures("small_code_generators")

CPU = torch.device("cpu")


@pytest.fixture
def state(config: TrainingConfig) -> TrainingState:
    """Networks that differ from their averages."""
    state = TrainingState(config, CPU)
    state.update_averages()
    with torch.no_grad():
        for parameter in state.framework.parameters():
            parameter += 1
    return state


@pytest.mark.parametrize(
    ("iteration", "paths", "columns", "rows"),
    [
        (1, {"a_seg"}, 2, 2),
        (2, {"a_seg"}, 2, 2),
        (3, {"a_seg"}, 5, 5),
        (5, {"a_seg"}, 5, 5),
        (6, {"a_seg", "a_self"}, 6, 5),
    ],
)
def test_paths_and_panel_are_those_of_the_stage(
    state: TrainingState,
    data: TrainingData,
    config: TrainingConfig,
    tmp_path: Path,
    iteration: int,
    paths: set[str],
    columns: int,
    rows: int,
) -> None:
    state.iteration = iteration
    found = validate(state, data, config, tmp_path)
    assert set(found.dice) == paths
    panel = cv2.imread(str(tmp_path / "samples" / "latest.png"))
    assert panel.shape == (32 * rows, 32 * columns, 3)  # two labelled rows, three INTER ones
    assert panel.std() > 10


def test_the_dice_is_that_of_the_averaged_generator_post_processed(
    state: TrainingState, data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    state.iteration = 8
    found = validate(state, data, config, tmp_path)
    images, truths = data.validation.images[32], data.validation.masks[32]
    with torch.no_grad():
        code = state.code_average.f_e(torch.ones(2, 4))
        for name, codes in (("a_seg", a_seg()), ("a_self", a_self(code))):
            logits = state.generator_average(images, codes)
            masks = [lung_mask(one.numpy(), (32, 32)) for one in logits[:, 1] - logits[:, 0]]
            mean = np.mean([dice(mask, truth.numpy()) for mask, truth in zip(masks, truths, strict=True)])
            assert found.dice[name] == pytest.approx(mean, abs=1e-9)


@torch.no_grad()
def test_the_adaptation_code_becomes_the_mean_style_of_the_intra_training_rows(
    state: TrainingState, data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    state.iteration = 2
    validate(state, data, config, tmp_path)
    assert not state.adaptation_code.any()  # not before stage 1
    state.iteration = 3
    validate(state, data, config, tmp_path)
    codes = state.style_average(data.domains[Domain.INTRA].images[32], Domain.INTRA)
    torch.testing.assert_close(state.adaptation_code, codes.mean(dim=0))


def test_validation_moves_no_weight(
    state: TrainingState, data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    state.iteration = 8
    before = {
        name: tensor.clone()
        for name, tensor in [*state.framework.state_dict().items(), *state.averages.state_dict().items()]
    }
    validate(state, data, config, tmp_path)
    after = {**state.framework.state_dict(), **state.averages.state_dict()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_panel_shows_what_the_averaged_networks_make(
    state: TrainingState, data: TrainingData, config: TrainingConfig, tmp_path: Path
) -> None:
    state.iteration = 4
    validate(state, data, config, tmp_path)
    panel = cv2.imread(str(tmp_path / "samples" / "latest.png"))
    image = data.domains[Domain.INTER].images[32][:1]
    assert np.array_equal(panel[64:96, :32], grey(image))
    with torch.no_grad():
        code = Codes(None, state.adaptation_code[None], Domain.INTRA)
        adapted = state.generator_average(image, code)
        (mask,) = segment(state.generator_average, image, a_seg(), CPU)
        (indirect,) = segment(state.generator_average, adapted, a_seg(), CPU)
    assert np.array_equal(panel[64:96, 32:64], grey(adapted))
    assert np.array_equal(panel[64:96, 96:128], outlined(grey(image), mask, FOUND))
    assert np.array_equal(panel[64:96, 128:160], outlined(grey(image), indirect, FOUND))


def test_segmenting_more_images_than_a_batch_keeps_their_order(state: TrainingState) -> None:
    images = torch.rand(9, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    code = torch.randn(1, 16)
    together = segment(state.generator_average, images, a_self(code), CPU)
    alone = [segment(state.generator_average, one[None], a_self(code), CPU)[0] for one in images]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_contours_are_drawn_on_a_copy_in_their_colours() -> None:
    picture, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), bool)
    mask[4:12, 4:12] = True
    drawn = outlined(outlined(picture, mask, TRUTH), mask[::-1, ::-1], FOUND)
    assert not picture.any()
    assert drawn[4, 4].tolist() == [0, 255, 0]  # BGR
    assert drawn[27, 27].tolist() == [0, 0, 255]
    assert not drawn[8, 8].any()


def test_grey_covers_the_whole_range() -> None:
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert grey(image)[0, :, 0].tolist() == [0, 0, 127, 255, 255]


def test_a_whole_run_without_adaptation_validates_one_path(
    data_root: Path, supervised: TrainingConfig, tmp_path: Path
) -> None:
    alone = replace(supervised, data=replace(supervised.data, inter=()))
    state = TrainingState(alone, CPU)
    state.iteration = 1
    found = validate(state, TrainingData(data_root, alone), alone, tmp_path)
    assert str(found) == f"Dice a_seg {found.dice['a_seg']:.4f}"
