"""``train/reference.sh``: the order of the runs, and where it stops. A recorder stands for ``cxredge``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cxredge_train.config_file import config_path, read_config

SCRIPT = Path(__file__).parents[2] / "train" / "reference.sh"
RECORDER = """#!/usr/bin/env bash
echo "$*" >> "$RECORD"
[ "$1" = train ] || exit 0
case "$*" in *"$UNFINISHED"*) echo "run: iteration 10" ;; *) echo "run: iteration 480, finished" ;; esac
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "cxredge"
    program.parent.mkdir()
    program.write_text(RECORDER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("CXREDGE_DATA", "data")
    monkeypatch.setenv("UNFINISHED", "nothing is")
    return tmp_path / "record"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", SCRIPT, *arguments], capture_output=True, text=True)


def test_each_run_starts_from_the_one_before_and_the_last_is_exported(record: Path) -> None:
    assert run("runs").returncode == 0
    assert record.read_text().splitlines() == [
        'train edge-augmented --set network.width=16 --set name="edge-augmented" -o runs/edge-augmented --resume',
        'train edge-finish --set network.width=16 --set name="edge-finish" -o runs/edge-finish --resume '
        "--init runs/edge-augmented",
        'train edge-robust --set network.width=16 --set name="edge-robust" -o runs/edge-robust --resume '
        "--init runs/edge-finish",
        'train edge-long --set network.width=16 --set name="edge-long" -o runs/edge-long --resume '
        "--init runs/edge-robust",
        'train edge-distilled --set network.width=16 --set name="edge-distilled" -o runs/edge-distilled --resume '
        "--init runs/edge-long",
        "average runs/edge-long runs/edge-distilled -o runs/edge-mean",
        "export runs/edge-mean -o runs/edge.onnx --folds shortcut,pool-conv,up-phases,head --parity-images data/jsrt",
    ]


@pytest.mark.parametrize(("newer", "averaged"), [("edge-mean", False), ("edge-distilled", True)])
def test_a_mean_is_made_again_only_where_the_last_run_is_newer(
    record: Path, tmp_path: Path, newer: str, averaged: bool
) -> None:
    for run_name in ("edge-mean", "edge-distilled"):
        weights = tmp_path / "runs" / run_name / "weights.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
        os.utime(weights, (1000, 2000 if run_name == newer else 1000))
    assert run(str(tmp_path / "runs")).returncode == 0
    commands = [line.split()[0] for line in record.read_text().splitlines()]
    assert commands == ["train"] * 5 + ["average"] * averaged + ["export"]
    assert (tmp_path / "runs" / "edge-mean" / "weights.safetensors").exists() is not averaged


def test_a_mean_that_was_cut_off_is_made_again(record: Path, tmp_path: Path) -> None:
    config = tmp_path / "runs" / "edge-mean" / "config.toml"
    config.parent.mkdir(parents=True)
    config.touch()
    assert run(str(tmp_path / "runs")).returncode == 0
    assert "average" in record.read_text()
    assert not config.exists()


def test_a_run_that_reached_its_time_is_the_last_of_this_call(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFINISHED", "standard-finish")
    done = run("runs", "standard", "9.5")
    assert done.returncode == 0
    assert "run: iteration 10" in done.stderr
    first, second = record.read_text().splitlines()
    assert first.startswith("train edge-augmented --set network.width=32 ")
    assert second.endswith("-o runs/standard-finish --resume --init runs/standard-augmented --max-minutes 9.5")


@pytest.mark.parametrize("arguments", [(), ("runs", "huge")])
def test_wrong_usage_starts_nothing(record: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode != 0
    assert "usage: train/reference.sh" in done.stderr
    assert not record.exists()


@pytest.mark.parametrize("step", ["augmented", "finish", "robust", "long", "distilled"])
def test_the_configurations_take_what_the_script_sets(step: str) -> None:
    changes = ("network.width=32", f'name="standard-{step}"')
    config = read_config(config_path(f"edge-{step}"), changes)
    assert (config.name, config.network.width) == (f"standard-{step}", 32)
