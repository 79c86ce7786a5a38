"""The cache: found by content, one builder at a time, nothing half made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cxredge.engine import cache as engine_cache
from cxredge.engine.cache import EngineKey, cached_engine, find_engine, make_engine
from cxredge.engine.device import Device
from cxredge.engine.fit import Wanted
from cxredge.engine.record import EngineRecord, file_sha256, read_record, sidecar_path
from cxredge.errors import EngineError, ModelError, OutputError

from .conftest import PLAN, make_record, write_engine

KEY = EngineKey(make_record().model_sha256, "tensorrt", "10.16.1.11", "8.9", (1, 4, 16), "fp16")
HERE = Wanted(None, "tensorrt", "10.16.1.11", "8.9")


def build(plan: Path) -> EngineRecord:
    plan.write_bytes(PLAN)
    return make_record()


def refuse(plan: Path) -> EngineRecord:
    raise AssertionError("built although there is an engine")


def test_the_key_is_of_the_content(tmp_path: Path) -> None:
    changes = {
        "model_sha256": "0" * 64,
        "flavour": "tensorrt_rtx",
        "version": "10.16.1.12",
        "compute_capability": "8.6",
        "batches": (1, 4, 8),
        "precision": "int8",
        "gpu_name": "NVIDIA L4",
        "options": {"tf32": True},
    }
    digests = {EngineKey(**{**vars(KEY), name: value}).digest() for name, value in changes.items()}
    assert len(digests | {KEY.digest()}) == len(changes) + 1
    assert EngineKey(**vars(KEY)).digest() == KEY.digest()


@pytest.mark.usefixtures("cache")
def test_an_engine_is_built_once() -> None:
    plan, record = cached_engine(KEY, build)
    assert plan.read_bytes() == PLAN
    assert read_record(sidecar_path(plan)) == record == make_record()
    assert cached_engine(KEY, refuse) == (plan, record)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("damage", ["truncated", "foreign", "no sidecar", "damaged sidecar", "of another version"])
def test_an_engine_that_does_not_fit_is_built_again(damage: str) -> None:
    plan, _ = cached_engine(KEY, build)
    if damage == "truncated":
        plan.write_bytes(PLAN[:10])
    elif damage == "foreign":
        plan.write_bytes(PLAN[::-1])
    elif damage == "no sidecar":
        sidecar_path(plan).unlink()
    elif damage == "damaged sidecar":
        sidecar_path(plan).write_text("{")
    else:
        sidecar_path(plan).write_text(make_record(version="10.3.0").to_json())
    with pytest.raises(AssertionError, match="built although"):
        cached_engine(KEY, refuse)
    plan, record = cached_engine(KEY, build)
    assert (plan.read_bytes(), record) == (PLAN, make_record())


@pytest.mark.parametrize("error", [EngineError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_build_that_fails_leaves_nothing(error: BaseException, cache: Path) -> None:
    def fail(plan: Path) -> EngineRecord:
        plan.write_bytes(PLAN)
        raise error

    with pytest.raises(type(error)):
        cached_engine(KEY, fail)
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []
    assert cached_engine(KEY, build)[1] == make_record()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, mode: str) -> None:
        raise OSError(28, "No space left on device")

    plan = tmp_path / "model.plan"
    plan.write_bytes(PLAN)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"model\.json: cannot be written: No space left on device"):
        make_engine(plan, lambda plan: make_record())
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_cache_is_told(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("not a folder")
    with pytest.raises(OutputError, match="engines cannot be kept there"):
        cached_engine(KEY, build)


TWO_PROCESSES = """
import sys, time
from pathlib import Path
from cxredge.engine.cache import EngineKey, cached_engine
from cxredge.engine.record import parse_record

record = parse_record(sys.stdin.buffer.read())

def build(plan):
    time.sleep(1)
    plan.write_bytes(b"a plan of TensorRT" * 100)
    print("built", flush=True)
    return record

key = EngineKey(record.model_sha256, record.flavour, record.version, record.compute_capability, record.batches, "fp16")
print(cached_engine(key, build)[0])
"""


def test_two_processes_that_build_at_once_build_one_engine(cache: Path) -> None:
    command = [sys.executable, "-c", TWO_PROCESSES]
    text = make_record().to_json()
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
    outputs = [process.stdout.read() for process in started if process.stdout is not None]
    assert [process.wait(60) for process in started] == [0, 0]
    assert sum(output.count("built") for output in outputs) == 1
    assert len({output.split()[-1] for output in outputs}) == 1
    assert len(list(cache.glob("*.plan"))) == 1


def write_model(folder: Path, content: bytes = b"model") -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def test_an_engine_is_found_by_the_content_of_its_model(tmp_path: Path, cache: Path) -> None:
    model = write_model(tmp_path)
    assert find_engine(model, HERE) is None
    record = write_engine(cache / "a.plan", make_record(model_sha256=file_sha256(model)))
    assert find_engine(model, HERE) == (cache / "a.plan", record)
    assert find_engine(write_model(tmp_path, b"another"), HERE) is None


def test_of_several_engines_the_newest_that_is_whole_is_found(tmp_path: Path, cache: Path) -> None:
    for name, day in (("a", 1), ("b", 3), ("c", 2), ("d", 4)):
        write_engine(cache / f"{name}.plan", make_record(created=f"2026-11-0{day}T00:00:00+00:00"))
    (cache / "d.plan").write_bytes(b"truncated")
    (cache / "e.plan").write_bytes(PLAN)
    engine = find_engine(write_model(tmp_path), HERE)
    assert engine is not None
    assert engine[0].name == "b.plan"


def test_an_engine_of_another_gpu_is_not_found(tmp_path: Path, cache: Path) -> None:
    write_engine(cache / "a.plan")
    assert find_engine(write_model(tmp_path), Wanted(None, "tensorrt", "10.16.1.11", "8.6")) is None


@pytest.mark.usefixtures("cache")
def test_a_model_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot be read"):
        find_engine(tmp_path / "none.onnx", HERE)


@pytest.mark.usefixtures("no_driver")
def test_without_a_gpu_there_is_no_engine_here(tmp_path: Path, cache: Path) -> None:
    from cxredge.engine.machine import engine_here

    write_engine(cache / "a.plan")
    assert engine_here(write_model(tmp_path)) is None


@pytest.mark.usefixtures("driver")
def test_the_engine_for_this_machine_is_found(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxredge.engine import machine
    from cxredge.engine.flavour import Flavour, FlavourChoice

    def installed(choice: FlavourChoice) -> Flavour:
        if choice == "tensorrt-rtx":
            raise EngineError("tensorrt_rtx is not installed")
        return Flavour("tensorrt", "10.16.1.11", None)

    monkeypatch.setattr(machine, "find_flavour", installed)
    model = write_model(tmp_path)
    write_engine(cache / "a.plan")
    assert machine.engine_here(model) is None, "it has not been proved"
    write_engine(cache / "a.plan", make_record(parity={"flipped_pixels": 0}))
    engine = machine.engine_here(model)
    assert engine is not None
    assert engine[0].name == "a.plan"
    assert machine.engine_here(model, "tensorrt-rtx") is None


def test_this_machine_s_wishes_leave_open_what_is_not_known() -> None:
    from cxredge.engine.machine import wanted_here

    assert wanted_here(None, None) == Wanted()
    assert wanted_here(None, Device("L4", "8.9", "580", 1)) == Wanted(None, None, None, "8.9", "L4")


def test_the_cache_is_where_the_platform_keeps_caches(cache: Path) -> None:
    assert engine_cache.cache_folder() == cache
