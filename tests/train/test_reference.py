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


def test_each_run_starts_from_the_one_before_and_the_last_mean_is_exported(record: Path) -> None:
    assert run("runs").returncode == 0
    assert record.read_text().splitlines() == [
        training("augmented"),
        training("finish", "augmented"),
        training("robust", "finish"),
        training("self", "robust"),
        "average runs/edge-robust runs/edge-self -o runs/edge-self-mean",
        training("self-again", "self-mean"),
        "average runs/edge-self-mean runs/edge-self-again -o runs/edge-self-again-mean",
        "export runs/edge-self-again-mean -o runs/edge.onnx --parity-images data/jsrt",
    ]


def training(step: str, before: str | None = None) -> str:
    line = f'train edge-{step} --set network.width=16 --set name="edge-{step}" -o runs/edge-{step} --resume'
    return line if before is None else f"{line} --init runs/edge-{before}"


def test_a_mean_that_is_there_is_kept(record: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "edge-self-mean").mkdir(parents=True)
    (tmp_path / "runs" / "edge-self-mean" / "weights.safetensors").touch()
    assert run(str(tmp_path / "runs")).returncode == 0
    averages = [line.split()[1:3] for line in record.read_text().splitlines() if line.startswith("average")]
    assert averages == [[str(tmp_path / "runs" / name) for name in ("edge-self-mean", "edge-self-again")]]


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


@pytest.mark.parametrize("step", ["augmented", "finish", "robust", "self", "self-again"])
def test_the_configurations_take_what_the_script_sets(step: str) -> None:
    changes = ("network.width=32", f'name="standard-{step}"')
    config = read_config(config_path(f"edge-{step}"), changes)
    assert (config.name, config.network.width) == (f"standard-{step}", 32)
