"""Loading and running a model: what is refused, and that a batch changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxredge.backends import Backend, open_backend
from cxredge.contract import Contract
from cxredge.errors import BackendError, CxredgeError, ModelError
from cxredge.pipeline import available_cores

INPUTS = np.random.default_rng(0).uniform(-1, 1, (5, 1, 64, 64)).astype(np.float32)


@pytest.fixture
def backend(model_file: Path) -> Iterator[Backend]:
    opened = open_backend(model_file, threads=1)
    yield opened
    opened.close()


def test_the_contract_comes_out_of_the_file(backend: Backend, contract: Contract) -> None:
    assert backend.contract == contract
    assert backend.name == "onnxruntime"


def test_logits_are_what_the_model_computes(backend: Backend) -> None:
    logits = backend.run(INPUTS)
    assert logits.shape == (5, 64, 64)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, -INPUTS[:, 0] - 0.2, atol=1e-6)


def test_a_batch_gives_what_single_runs_give(backend: Backend) -> None:
    singles = np.concatenate([backend.run(INPUTS[i : i + 1]) for i in range(len(INPUTS))])
    np.testing.assert_array_equal(backend.run(INPUTS), singles)


def test_many_threads_may_run_one_backend(backend: Backend) -> None:
    expected = backend.run(INPUTS)
    with ThreadPoolExecutor(8) as pool:
        for logits in pool.map(lambda _: backend.run(INPUTS), range(40)):
            np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS.astype(np.float64),
        INPUTS.astype(np.float16),
        INPUTS[:, 0],
        INPUTS[0, 0],
        INPUTS[:, :, :32],
        INPUTS[:0],
        np.concatenate([INPUTS, INPUTS], axis=1),
    ],
    ids=["float64", "float16", "3-D", "2-D", "not square", "no images", "two channels"],
)
def test_inputs_that_do_not_fit_are_refused(inputs: np.ndarray, backend: Backend) -> None:
    with pytest.raises(BackendError, match="64, 64"):
        backend.run(inputs)


def test_inputs_need_not_be_contiguous(backend: Backend) -> None:
    turned = INPUTS.transpose(0, 1, 3, 2)
    np.testing.assert_allclose(backend.run(turned), -turned[:, 0] - 0.2, atol=1e-6)


def test_a_closed_backend_refuses_to_run_and_closes_again_quietly(model_file: Path) -> None:
    opened = open_backend(model_file)
    opened.close()
    with pytest.raises(BackendError, match="closed"):
        opened.run(INPUTS)
    opened.close()


def test_lanes_times_threads_is_the_number_of_cores(model_file: Path) -> None:
    cores = available_cores()
    for threads, lanes in ((1, cores), (cores, 1), (None, 1), (10 * cores, 1)):
        opened = open_backend(model_file, threads=threads)
        assert opened.lanes == lanes
        opened.close()


def test_auto_takes_a_backend_that_runs(model_file: Path) -> None:
    opened = open_backend(model_file, "auto")
    assert opened.run(INPUTS).shape == (5, 64, 64)
    opened.close()


def test_an_unknown_backend_is_refused_with_the_known_ones(model_file: Path) -> None:
    with pytest.raises(BackendError, match=r"'abacus'.*onnxruntime"):
        open_backend(model_file, "abacus")  # type: ignore[arg-type]


def test_a_missing_model_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        open_backend(tmp_path / "absent.onnx")
    with pytest.raises(CxredgeError, match=f"{tmp_path}: is not a checkpoint"):
        open_backend(tmp_path)


def test_random_bytes_are_refused_by_their_path(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    for content in (b"", np.random.default_rng(0).bytes(5000), b"PK\x03\x04 not a model"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"noise\.onnx"):
            open_backend(path)


def test_a_truncated_model_is_refused(tmp_path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        open_backend(path)


def test_a_model_without_a_contract_is_refused(tmp_path: Path, make_model: Any) -> None:
    path = make_model(tmp_path / "foreign.onnx", metadata=None)
    with pytest.raises(ModelError, match=r"foreign\.onnx.*no cxredge contract"):
        open_backend(path)


def test_a_model_with_a_broken_contract_is_refused(tmp_path: Path, make_model: Any) -> None:
    path = make_model(tmp_path / "broken.onnx", metadata='{"name": "x"}')
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        open_backend(path)


@pytest.mark.parametrize(
    "graph", [{"size": 32}, {"channels_in": 3}, {"channels_out": 2}], ids=["other size", "colour input", "two classes"]
)
def test_a_model_that_breaks_its_own_contract_is_refused_when_it_is_loaded(
    graph: dict[str, int], tmp_path: Path, make_model: Any
) -> None:
    with pytest.raises(CxredgeError, match=r"liar\.onnx"):
        open_backend(make_model(tmp_path / "liar.onnx", **graph))
