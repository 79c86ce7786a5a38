"""What is larger or deeper than it may be is refused before it is parsed or allocated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cxredge.limits import (
    DEEPEST_NESTING,
    LimitError,
    parse_json,
    read_bytes,
    read_json,
    require_depth,
    require_file_size,
    require_image_size,
)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20_000, 20_000), (65_535, 6_103), (6_103, 65_535)])
def test_sizes_up_to_400_megapixels_are_accepted(height: int, width: int) -> None:
    require_image_size(height, width)


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (20_000, 20_001, "20001x20000 pixels, at most 400 megapixels and 65535 pixels a side"),
        (100, 65_536, "65536x100 pixels"),
        (65_536, 100, "100x65536 pixels"),
        (0, 100, "size of 100x0 pixels, which is none"),
        (100, -1, "size of -1x100 pixels, which is none"),
    ],
)
def test_other_sizes_are_refused(height: int, width: int, said: str) -> None:
    with pytest.raises(LimitError, match=said):
        require_image_size(height, width)


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    require_file_size(tmp_path / "a", 5)
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(LimitError, match="has 5 bytes, at most 4 are read"):
        require_file_size(tmp_path / "a", 4)
    with pytest.raises(LimitError, match="has 5 bytes"):
        read_bytes(tmp_path / "a", 4)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no endless file here")
def test_an_endless_file_ends() -> None:
    with pytest.raises(LimitError):
        read_bytes(Path("/dev/zero"), 1000)


def test_a_sparse_file_costs_nothing(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    with pytest.raises(LimitError):
        require_file_size(tmp_path / "huge", 1 << 30)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def test_json_up_to_32_levels_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(nested(DEEPEST_NESTING)))
    assert read_json(tmp_path / "a.json") == nested(DEEPEST_NESTING)
    require_depth(nested(DEEPEST_NESTING))


@pytest.mark.parametrize("text", [json.dumps(nested(DEEPEST_NESTING + 1)), "[" * 10**6, '{"a":' * 10**5, "[" * 40])
def test_deeper_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested deeper than 32|Expecting value"):
        parse_json(text)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "", "{", "9" * 5000, '"\\ud800'])
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the parser words it)
        parse_json(text)


def test_depth_counts_lists_and_tables_only() -> None:
    require_depth("[" * 1000)
    require_depth([["a" * 100] * 100] * 100)
    with pytest.raises(LimitError):
        require_depth([1, 2, {"a": nested(DEEPEST_NESTING)}])
