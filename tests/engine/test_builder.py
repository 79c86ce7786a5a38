"""Building: what the compiler says on failure, the bar, Ctrl-C, and the timing cache."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cxredge.bundle import bundled_model
from cxredge.engine import builder
from cxredge.engine.builder import BuildSettings, build_plan, load_timing_cache, save_timing_cache, set_target
from cxredge.engine.flavour import Flavour, load_flavour
from cxredge.engine.progress import BuildProgress
from cxredge.errors import EngineError, MissingExtraError

SETTINGS = BuildSettings((1, 4, 16), "8.9", native=False)


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return load_flavour("tensorrt_rtx")


@pytest.fixture(scope="module")
def model() -> bytes:
    return bundled_model().read_bytes()


def test_every_phase_is_told_from_first_to_last_step(rtx: Flavour, model: bytes) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    build_plan(model, rtx, SETTINGS, BuildProgress(lambda phase, *steps: told.setdefault(phase, []).append(steps)))
    assert "Building engine" in told
    for steps in told.values():
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1] > 0


def test_nothing_is_printed(rtx: Flavour, model: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    build_plan(model, rtx, SETTINGS, BuildProgress())
    assert capfd.readouterr() == ("", "")


def test_a_damaged_model_is_an_error_with_the_parser_s_words(rtx: Flavour, model: bytes) -> None:
    with pytest.raises(EngineError, match=r"tensorrt_rtx 1\.\S+ builds no engine: .*Failed to parse the ONNX model"):
        build_plan(model[:5000], rtx, SETTINGS, BuildProgress())


@pytest.mark.parametrize("content", [b"", b"xx"])
def test_a_model_without_an_input_is_an_error(content: bytes, rtx: Flavour) -> None:
    with pytest.raises(EngineError, match="does not have one input with a dynamic batch"):
        build_plan(content, rtx, SETTINGS, BuildProgress())


def test_a_build_that_fails_carries_what_tensorrt_said(rtx: Flavour, model: bytes) -> None:
    """Without a driver nothing is built for the GPU of this machine where the library does not know its number."""
    from cxredge.engine.device import find_device

    if find_device() is not None:
        pytest.skip("there is a GPU, for which the build would succeed")
    settings = BuildSettings((1, 4, 16), "9.9", native=True)
    with pytest.raises(EngineError, match=r"builds no engine: .*CUDA driver version is insufficient"):
        build_plan(model, rtx, settings, BuildProgress())


def test_polygraphy_s_logger_is_left_as_it_was(rtx: Flavour, model: bytes) -> None:
    build_plan(model, rtx, SETTINGS, BuildProgress())
    from polygraphy.logger import G_LOGGER

    assert not G_LOGGER.use_python_logging_system
    assert logging.getLogger(builder.POLYGRAPHY_LOGGER).handlers == []


INTERRUPTED = """
import os, signal
from cxredge.bundle import bundled_model
from cxredge.engine.builder import BuildSettings, build_plan
from cxredge.engine.flavour import load_flavour
from cxredge.engine.progress import BuildProgress

class Interrupting(BuildProgress):
    sent = finished = False

    def step(self, phase, number):
        if not self.sent and number == 3:
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)
        while self.sent and not self.cancelled:
            pass  # until the main thread has seen it
        return super().step(phase, number)

    def finish(self, phase):
        self.finished |= phase == "Building engine"

model, rtx = bundled_model().read_bytes(), load_flavour("tensorrt_rtx")
settings, handler = BuildSettings((1, 4, 16), "8.9", native=False), signal.default_int_handler
signal.signal(signal.SIGINT, handler)
for number in range(3):
    progress = Interrupting()
    try:
        build_plan(model, rtx, settings, progress)
    except KeyboardInterrupt:
        print("stopped", progress.sent, progress.finished, signal.getsignal(signal.SIGINT) is handler)
print("built", len(build_plan(model, rtx, settings, BuildProgress())))
"""
"""A program that presses Ctrl-C in three builds and lets a fourth one end."""


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("rtx")
def test_ctrl_c_stops_the_build_once_tensorrt_has_stopped_and_another_can_be_built() -> None:
    """In a process of its own: pytest's faulthandler has signals handled on a stack that can be too small for it."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    *stopped, built = done.stdout.splitlines()
    assert stopped == ["stopped True True True"] * 3, done.stderr
    assert int(built.removeprefix("built ")) > 1_000_000
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.timeout(60)
def test_a_build_in_another_thread_leaves_ctrl_c_alone(rtx: Flavour, model: bytes) -> None:
    handlers, plans = set(), list[bytes]()
    progress = BuildProgress(lambda *_: handlers.add(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: plans.append(build_plan(model, rtx, SETTINGS, progress)))
    thread.start()
    thread.join()
    assert handlers == {signal.getsignal(signal.SIGINT)}
    assert len(plans[0]) > 1_000_000


def test_without_polygraphy_the_extra_is_named(rtx: Flavour, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy.logger", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxredge\[rtx\]'"):
        build_plan(model, rtx, SETTINGS, BuildProgress())


class MadeConfig:
    """The part of ``IBuilderConfig`` that a timing cache goes through."""

    def __init__(self, taken: bool = True) -> None:
        self.taken, self.set, self.measured = taken, [], b"measured"

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content if content != b"damaged" else None

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.set.append(cache)
        return self.taken or cache == b""

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.measured)


def test_the_timing_cache_is_kept_from_build_to_build(tmp_path: Path) -> None:
    path = tmp_path / "engines" / "timing.bin"
    config = MadeConfig()
    load_timing_cache(config, path)
    save_timing_cache(config, path)
    load_timing_cache(config, path)
    assert config.set == [b"", b"measured"]


@pytest.mark.parametrize(("content", "taken"), [(b"damaged", True), (b"of another GPU", False)])
def test_a_timing_cache_that_does_not_fit_counts_as_empty(content: bytes, taken: bool, tmp_path: Path) -> None:
    path = tmp_path / "timing.bin"
    path.write_bytes(content)
    config = MadeConfig(taken)
    load_timing_cache(config, path)
    assert config.set[-1] == b""


def test_a_timing_cache_that_cannot_be_written_does_not_fail_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save_timing_cache(MadeConfig(), tmp_path / "file" / "timing.bin")


class MadeTarget:
    """The part of an ``IBuilderConfig`` of TensorRT for RTX that names the target."""

    num_compute_capabilities = 0

    def set_compute_capability(self, capability: str, index: int) -> None:
        self.target = capability, index


RTX = SimpleNamespace(ComputeCapability=SimpleNamespace(SM89="SM89", CURRENT="CURRENT"))


@pytest.mark.parametrize(
    ("capability", "native", "target"), [("8.9", False, "SM89"), ("8.9", True, "SM89"), ("9.0", True, "CURRENT")]
)
def test_the_target_is_named_where_it_has_a_name(capability: str, native: bool, target: str) -> None:
    config = MadeTarget()
    set_target(RTX, config, BuildSettings((1, 1, 1), capability, native))
    assert config.target == (target, 0)
    assert config.num_compute_capabilities == 1


def test_a_target_without_a_name_cannot_be_cross_built() -> None:
    with pytest.raises(EngineError, match=r"does not build for compute capability 9\.0"):
        set_target(RTX, MadeTarget(), BuildSettings((1, 1, 1), "9.0", native=False))


def test_tensorrt_builds_for_this_machine_only() -> None:
    set_target(SimpleNamespace(), object(), BuildSettings((1, 1, 1), "8.9", native=True))
    with pytest.raises(EngineError, match="only for the GPU of this machine"):
        set_target(SimpleNamespace(), object(), SETTINGS)
