"""The sidecar: read back as it was written, and refused whole where anything in it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxredge.engine.record import LARGEST_SIDECAR, parse_record, read_record, sidecar_path
from cxredge.errors import EngineError

from .conftest import make_record


def test_a_sidecar_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    record = make_record(parity={"flipped_pixels": 3}, options={"tf32": False}, build_seconds=12.5)
    path = sidecar_path(tmp_path / "model.plan")
    path.write_text(record.to_json())
    assert path.name == "model.json"
    assert read_record(path) == record
    assert read_record(path).read_contract().input_size == 32


def test_a_missing_sidecar_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.json: there is no such file.*build-engine"):
        read_record(tmp_path / "model.json")


def test_a_folder_is_no_sidecar(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 2, "format is 2"),
        ("format", True, "format is True"),
        ("flavour", "tensorflow", "flavour is 'tensorflow'"),
        ("precision", "fp8", "precision is 'fp8'"),
        ("model_sha256", "abc", "model_sha256 is 'abc'"),
        ("plan_sha256", 7, "plan_sha256 must be text"),
        ("version", "ten", "version is 'ten'"),
        ("version", "1." * 200, "version must be text of at most"),
        ("compute_capability", "89", "compute_capability is '89'"),
        ("gpu_name", "", "gpu_name must be text"),
        ("driver", 580, "driver must be text"),
        ("plan_bytes", 0, "plan_bytes is 0"),
        ("plan_bytes", 1.5, "plan_bytes is 1.5"),
        ("plan_bytes", 1 << 60, "plan_bytes is"),
        ("batches", [1, 4], "batches is"),
        ("batches", "1,4,16", "batches is"),
        ("batches", [4, 1, 16], "does not grow"),
        ("batches", [0, 1, 2], "batches is 0"),
        ("batches", [1, True, 2], "batches is True"),
        ("build_seconds", -1, "build_seconds is -1"),
        ("build_seconds", "12", "build_seconds is '12'"),
        ("build_seconds", True, "build_seconds is True"),
        ("created", "yesterday", "created is 'yesterday'"),
        ("options", [], "options must be an object"),
        ("parity", "good", "parity must be an object"),
        ("contract", None, "contract must be an object"),
        ("contract", {"name": "tiny"}, "contract: field"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(field: str, value: Any, message: str, tmp_path: Path) -> None:
    content = {**json.loads(make_record().to_json()), field: value}
    path = tmp_path / "model.json"
    path.write_text(json.dumps(content))
    with pytest.raises(EngineError, match=rf"model\.json: is not the sidecar of an engine: .*{message}"):
        read_record(path)


@pytest.mark.parametrize("field", sorted(json.loads(make_record().to_json())))
def test_no_field_may_be_missing(field: str) -> None:
    content = json.loads(make_record().to_json())
    del content[field]
    with pytest.raises(EngineError, match=f"field '{field}' is missing"):
        parse_record(json.dumps(content).encode())


def test_an_unknown_field_is_of_a_newer_version() -> None:
    content = {**json.loads(make_record().to_json()), "abacus": 1}
    with pytest.raises(EngineError, match="unknown field 'abacus'; it was made by a newer cxredge"):
        parse_record(json.dumps(content).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b" " * (LARGEST_SIDECAR + 1)],
    ids=["empty", "not UTF-8", "a list", "null", "deep", "large"],
)
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(EngineError):
        parse_record(content)


def test_nan_is_refused() -> None:
    text = make_record().to_json().replace('"build_seconds": 0.0', '"build_seconds": NaN')
    assert "NaN" in text
    with pytest.raises(EngineError, match="NaN is not a number"):
        parse_record(text.encode())


@given(st.binary(max_size=200))
def test_bytes_are_a_sidecar_or_an_engine_error(content: bytes) -> None:
    with pytest.raises(EngineError):
        parse_record(content)


@given(
    st.sampled_from(sorted(json.loads(make_record().to_json()))),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda c: st.lists(c), max_leaves=5
    ),
)
def test_any_value_in_any_field_is_taken_or_an_engine_error(field: str, value: Any) -> None:
    content = {**json.loads(make_record().to_json()), field: value}
    try:
        record = parse_record(json.dumps(content).encode())
    except EngineError:
        return
    assert parse_record(record.to_json().encode()) == record
