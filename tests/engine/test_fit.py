"""Whether an engine fits is decided from its sidecar and the plan's bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxredge.engine.fit import Wanted, check
from cxredge.engine.record import EngineRecord, sidecar_path

from .conftest import PLAN, make_record, write_engine

HERE = Wanted(make_record().model_sha256, "tensorrt", "10.16.1.11", "8.9", "NVIDIA GeForce RTX 4090")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.plan"
    write_engine(path)
    return path


def reasons(plan: Path, wanted: Wanted = HERE, record: EngineRecord | None = None) -> list[str]:
    return check(plan, record or make_record(), wanted)


def test_an_engine_fits_where_it_was_built(plan: Path) -> None:
    assert reasons(plan) == []


def test_what_is_not_known_is_not_compared(plan: Path) -> None:
    assert reasons(plan, Wanted()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_sha256": "0" * 64}, "another model"),
        ({"flavour": "tensorrt_rtx"}, "it is for tensorrt, installed is tensorrt_rtx"),
        ({"version": "10.16.1.12"}, "built by tensorrt 10.16.1.11, installed is 10.16.1.12"),
        ({"compute_capability": "8.6"}, "for compute capability 8.9, the GPU has 8.6"),
        ({"gpu_name": "NVIDIA L4"}, "built on NVIDIA GeForce RTX 4090, the GPU is NVIDIA L4"),
    ],
)
def test_each_difference_is_a_reason(change: dict[str, str], message: str, plan: Path) -> None:
    (reason,) = reasons(plan, Wanted(**{**vars(HERE), **change}))
    assert message in reason


def test_all_differences_are_told_at_once(plan: Path) -> None:
    plan.write_bytes(PLAN[:-1])
    assert len(reasons(plan, Wanted("0" * 64, "tensorrt", "11.4.0.1", "9.0", "H100"))) == 4


def test_a_plan_of_rtx_is_not_bound_to_the_gpu_s_name(plan: Path) -> None:
    record = make_record(flavour="tensorrt_rtx", version="1.7.1.116")
    assert reasons(plan, Wanted(None, "tensorrt_rtx", "1.7.1.116", "8.9", "NVIDIA L4"), record) == []


def test_a_truncated_plan_is_found_by_its_size(plan: Path) -> None:
    plan.write_bytes(PLAN[:100])
    assert reasons(plan) == [f"the plan is truncated: 100 of {len(PLAN)} bytes"]


@pytest.mark.parametrize("content", [PLAN[:-1] + b"x", PLAN + b"x"], ids=["same size", "longer"])
def test_a_foreign_plan_is_found_by_its_hash(content: bytes, plan: Path) -> None:
    plan.write_bytes(content)
    assert reasons(plan) == ["the plan is not the one that the sidecar describes (its sha256 differs)"]


def test_a_missing_plan_is_a_reason(plan: Path) -> None:
    plan.unlink()
    assert "cannot be read: No such file" in reasons(plan)[0]
    assert sidecar_path(plan).is_file()
