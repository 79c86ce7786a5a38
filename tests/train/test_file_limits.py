"""Configurations and checkpoints that are too large or too deep are refused by name, before they are parsed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from cxredge.errors import CheckpointError, ConfigError
from cxredge.limits import LARGEST_CONFIG, LARGEST_WEIGHTS, LARGEST_WEIGHTS_HEADER
from cxredge_train.checkpoint import WEIGHTS, load_trained, save_checkpoint, start_from
from cxredge_train.config import TrainingConfig
from cxredge_train.config_file import read_config
from cxredge_train.framework import TrainingState


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 40 + "]" * 40,
        "a = " + "[" * 50_000,
        "a = " + "{b = " * 5_000,
        ".".join("a" * 60) + " = 1",
        "[" + ".".join("a" * 100) + "]\nb = 1",
    ],
    ids=["lists", "open lists", "open tables", "dotted key", "dotted table"],
)
def test_a_deep_configuration_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"deep\.toml: cannot be read: "):
        read_config(tmp_path / "deep.toml")


def test_a_change_cannot_be_deep_either(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("")
    with pytest.raises(ConfigError, match="is not one table"):
        read_config(tmp_path / "a.toml", ["a.b=" + "[" * 5_000])


def test_a_large_configuration_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_text("#" * (LARGEST_CONFIG + 1))
    with pytest.raises(ConfigError, match=rf"large\.toml: cannot be read: has {LARGEST_CONFIG + 1} bytes"):
        read_config(tmp_path / "large.toml")


@pytest.mark.parametrize(
    ("field", "said"), [("width = 1000000", "width must be"), ("input_size = 65536", "input_size must be at most 4096")]
)
def test_a_network_larger_than_any_machine_is_refused(field: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"[network]\n{field}\n")
    with pytest.raises(ConfigError, match=said):
        read_config(tmp_path / "a.toml")


@pytest.fixture
def saved(tmp_path: Path, config: TrainingConfig) -> Path:
    save_checkpoint(tmp_path / "saved", config, TrainingState(config, torch.device("cpu")), {})
    return tmp_path / "saved"


def test_weights_beyond_the_limit_are_refused_by_name(saved: Path, config: TrainingConfig) -> None:
    with (saved / WEIGHTS).open("rb+") as file:
        os.truncate(file.fileno(), LARGEST_WEIGHTS + 1)  # sparse
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: cannot be read: has {LARGEST_WEIGHTS + 1} bytes"):
        load_trained(saved)
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: cannot start from it: has {LARGEST_WEIGHTS + 1} bytes"):
        start_from(saved, TrainingState(config, torch.device("cpu")))


@pytest.mark.parametrize("length", [LARGEST_WEIGHTS_HEADER + 1, 2**63, 2**64 - 1])
def test_weights_with_a_huge_header_are_refused_by_name(length: int, saved: Path) -> None:
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: cannot be read: has a header of {length} bytes"):
        load_trained(saved)


def header_changed(path: Path, change: str) -> bytes:
    """The weights with another offset, shape or type for their first tensor, as an attack would."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    tensor = header[next(name for name in header if name != "__metadata__")]
    if change == "offsets":
        tensor["data_offsets"] = [0, 1 << 40]
    elif change == "shape":
        tensor["shape"] = [1 << 40, 1 << 40]
    elif change == "negative":
        tensor["shape"] = [-1]
    elif change == "deep":
        header["__metadata__"]["facts"] = "[" * 1000 + "]" * 1000
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@pytest.mark.parametrize("change", ["offsets", "shape", "negative", "deep"])
def test_weights_whose_header_lies_are_refused_by_name(change: str, saved: Path) -> None:
    (saved / WEIGHTS).write_bytes(header_changed(saved / WEIGHTS, change))
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: cannot be read: "):
        load_trained(saved)
