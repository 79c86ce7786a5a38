"""A checkpoint runs like any other model, by the direct and the indirect path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cxredge import Segmenter
from cxredge.cli import main
from cxredge.data.dataset import open_dataset
from cxredge.errors import BackendError, CheckpointError
from cxredge.evaluation.scoring import dice
from cxredge.preprocessing import network_input
from cxredge_train.checkpoint import load_trained, resume
from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.inference import CheckpointBackend
from cxredge_train.networks import Codes, Domain, a_da, a_seg, a_self

pytestmark = pytest.mark.usefixtures("small_code_generators")

Finished = tuple[Path, Any, Any]


@pytest.fixture
def distilled(finished: Finished) -> Path:
    return finished[0]


@pytest.fixture
def state(distilled: Path, config: TrainingConfig) -> TrainingState:
    state = TrainingState(config, torch.device("cpu"))
    resume(distilled, config, state)
    return state


def inputs(count: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 1, size, size)).astype(np.float32)


@torch.no_grad()
def lung(state: TrainingState, images: torch.Tensor, codes: Codes) -> np.ndarray:
    logits = state.generator_average(images, codes)
    return np.asarray((logits[:, 1] - logits[:, 0]).numpy())


def test_the_direct_path_is_a_self_at_the_latent_and_the_heads_of_training(
    distilled: Path, state: TrainingState
) -> None:
    backend = CheckpointBackend(distilled)
    assert (backend.contract.code, backend.contract.input_size) == ("a_self", 32)
    with torch.no_grad():
        code = state.code_average.f_e(torch.ones(3, 4))
    expected = lung(state, torch.from_numpy(inputs()), a_self(code))
    np.testing.assert_allclose(backend.run(inputs()), expected, atol=1e-3)
    assert np.abs(expected - lung(state, torch.from_numpy(inputs()), a_seg())).max() > 1e-2


def test_the_indirect_path_adapts_to_intra_and_then_takes_a_seg(distilled: Path, state: TrainingState) -> None:
    backend = CheckpointBackend(distilled, "indirect")
    code = state.adaptation_code.expand(3, 16)
    with torch.no_grad():
        adapted = state.generator_average(torch.from_numpy(inputs()), a_da(code, Domain.INTRA))
    np.testing.assert_allclose(backend.run(inputs()), lung(state, adapted, a_seg()), atol=1e-3)
    assert np.abs(backend.run(inputs()) - CheckpointBackend(distilled).run(inputs())).max() > 1e-2


def test_the_supervised_path_is_a_seg_after_stage_2_too(distilled: Path, state: TrainingState) -> None:
    expected = lung(state, torch.from_numpy(inputs()), a_seg())
    np.testing.assert_allclose(CheckpointBackend(distilled, "supervised").run(inputs()), expected, atol=1e-3)


def test_before_stage_2_the_direct_path_is_a_seg(stops: dict[int, Path]) -> None:
    for iteration in (2, 5):
        backend, trained = CheckpointBackend(stops[iteration]), load_trained(stops[iteration])
        assert backend.contract.code == "a_seg"
        with torch.no_grad():
            logits = trained.generator(torch.from_numpy(inputs()), a_seg())
        np.testing.assert_allclose(backend.run(inputs()), (logits[:, 1] - logits[:, 0]).numpy(), atol=1e-3)


def test_the_indirect_path_is_refused_where_nothing_was_adapted(stops: dict[int, Path], distilled: Path) -> None:
    with pytest.raises(BackendError, match="has no indirect path"):
        CheckpointBackend(stops[2], "indirect")
    CheckpointBackend(stops[4], "indirect")
    with pytest.raises(BackendError, match="direct path only; name a checkpoint"):
        Segmenter.load("model.onnx", path="indirect")


@pytest.mark.parametrize("wrong", [inputs(0), inputs(1, 48), inputs().astype(np.float64), inputs()[:, 0]])
def test_inputs_that_do_not_fit_are_refused(distilled: Path, wrong: np.ndarray) -> None:
    with pytest.raises(BackendError, match=r"the model takes float32 \(N, 1, 32, 32\)"):
        CheckpointBackend(distilled).run(wrong)


def test_the_segmenter_runs_a_checkpoint_folder(distilled: Path, data_root: Path) -> None:
    (case, *_) = open_dataset(data_root / "lungs").split("val")
    for path in ("direct", "indirect"):
        with Segmenter.load(distilled, path=path, threads=1) as segmenter:
            assert segmenter.backend == "torch"
            result = segmenter(case.image)
        expected = CheckpointBackend(distilled, path).run(network_input(case.radiograph(), 32)[None, None])[0]
        np.testing.assert_allclose(result.logits, expected, atol=1e-3)
        assert result.mask.shape == (64, 64)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        Segmenter.load(tmp_path)


def evaluate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.mark.parametrize("path", ["direct", "indirect", "supervised"])
def test_the_command_scores_a_checkpoint_by_each_path(
    distilled: Path, data_root: Path, tmp_path: Path, path: str
) -> None:
    figures = tmp_path / "figures.json"
    result = evaluate(distilled, data_root / "lungs", "--split", "val", "--path", path, "--json", figures)
    assert result.exit_code == 0, result.output
    content = json.loads(figures.read_text())
    assert (content["model"], content["code"], content["path"]) == ("tiny", "a_self", path)
    scores = []
    with Segmenter.load(distilled, path=path) as segmenter:  # type: ignore[arg-type]
        for case in open_dataset(data_root / "lungs").split("val"):
            truth = case.label(case.mask, 64)
            scores.append(dice(segmenter(case.image).mask, truth))
    (scored,) = content["datasets"]
    assert scored["dice"]["count"] == 2
    assert scored["dice"]["mean"] == pytest.approx(np.mean(scores), abs=0.02)


def test_the_command_refuses_an_indirect_path_that_is_not_there(stops: dict[int, Path], data_root: Path) -> None:
    for model, reason in ((stops[2], "has no indirect path"), ("model.onnx", "direct path only")):
        result = evaluate(model, data_root / "lungs", "--split", "val", "--path", "indirect")
        assert result.exit_code == 1
        assert reason in result.output
