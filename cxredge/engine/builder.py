"""From a typed ONNX model to a plan: one path for TensorRT 10.3 to 11 and TensorRT for RTX.

Precision lives in the ONNX file and the network is strongly typed, so that no builder flag or calibrator
is needed. Polygraphy parses (``NetworkFromOnnxBytes``) and builds (``EngineBytesFromNetwork``); the
configuration is made here, because Polygraphy's ``CreateConfig`` still offers what TensorRT 11 removed.
The build runs in a thread of its own: TensorRT releases Python's lock, and the main thread stays free for
Ctrl-C, which stops the build at its next step. Nothing returns before TensorRT has: a process that ended
under it would crash.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxredge.engine.flavour import Flavour, choose_for_polygraphy
from cxredge.engine.progress import BuildProgress, monitor_for
from cxredge.engine.record import Batches
from cxredge.errors import EngineError, MissingExtraError, OutputError
from cxredge.runs.results import write_atomically

POLYGRAPHY_LOGGER = "Polygraphy"
SECONDS_A_WAIT = 0.1


@dataclass(frozen=True)
class BuildSettings:
    """What a plan is built for.

    Attributes:
        batches: smallest, best and largest batch.
        compute_capability: as ``"8.9"``.
        native: whether the GPU is in this machine.
        timing_cache: file in which ``tensorrt`` keeps what it measured; ``None`` for none. TensorRT for RTX
            measures nothing.
    """

    batches: Batches
    compute_capability: str
    native: bool
    timing_cache: Path | None = None


def build_plan(model: bytes, flavour: Flavour, settings: BuildSettings, progress: BuildProgress) -> bytes:
    """Compile a typed ONNX model.

    Args:
        model: the ONNX file's bytes.
        flavour: the TensorRT; that a driver is there, where one is needed, has been checked before.
        settings: what to build for.
        progress: told about each step; cancelling it stops the build.

    Raises:
        EngineError: the model cannot be parsed or built; the message carries what TensorRT said.
        KeyboardInterrupt: Ctrl-C; the build has stopped.
    """
    outcome: list[bytes | BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(compile_model(model, flavour, settings, progress))
        except BaseException as error:  # raised again in the caller's thread
            outcome.append(error)
        finally:
            done.set()

    with cancelled_by_ctrl_c(progress):
        thread = threading.Thread(target=work, name="cxredge build")
        thread.start()
        while not done.wait(SECONDS_A_WAIT):
            pass
        thread.join()
    if progress.cancelled:
        raise KeyboardInterrupt
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


@contextmanager
def cancelled_by_ctrl_c(progress: BuildProgress) -> Iterator[None]:
    """Let Ctrl-C cancel the build instead of raising; outside the main thread Python lets nobody decide that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: progress.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def compile_model(model: bytes, flavour: Flavour, settings: BuildSettings, progress: BuildProgress) -> bytes:
    """Parse and build, in Polygraphy."""
    with polygraphy_messages(flavour) as messages:
        from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxBytes
        from polygraphy.exception import PolygraphyException

        made = []

        def configure(builder: Any, network: Any) -> Any:
            made.append(make_config(builder, network, flavour, settings, progress))
            return made[0]

        try:
            network = NetworkFromOnnxBytes(model, strongly_typed=True)
            plan = bytes(EngineBytesFromNetwork(network, config=configure)())
        except PolygraphyException as error:
            raise EngineError(f"{flavour.name} {flavour.version} builds no engine: {said(messages, error)}") from error
        save_timing_cache(made[0], settings.timing_cache)
        return plan


def make_config(builder: Any, network: Any, flavour: Flavour, settings: BuildSettings, progress: BuildProgress) -> Any:
    """The builder's configuration: the profile, the target, and FP32 that is FP32 (no TF32)."""
    trt = flavour.module
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.progress_monitor = monitor_for(trt, progress)
    add_profile(builder, network, config, settings.batches)
    set_target(trt, config, settings)
    load_timing_cache(config, settings.timing_cache)
    return config


def add_profile(builder: Any, network: Any, config: Any, batches: Batches) -> None:
    """Give the network's input its smallest, best and largest batch.

    Raises:
        EngineError: the network does not have one input with a dynamic batch.
    """
    tensor = network.get_input(0) if network.num_inputs == 1 else None
    if tensor is None or tensor.shape[0] != -1:
        raise EngineError("the network does not have one input with a dynamic batch; export it with 'cxredge export'")
    profile = builder.create_optimization_profile()
    smallest, best, largest = ((batch, *tensor.shape[1:]) for batch in batches)
    profile.set_shape(tensor.name, smallest, best, largest)
    config.add_optimization_profile(profile)


def set_target(trt: Any, config: Any, settings: BuildSettings) -> None:
    """Name the GPU to build for, where the flavour can; elsewhere it is the one of this machine.

    Raises:
        EngineError: the flavour builds for this machine's GPU only, or not for that capability.
    """
    name = "SM" + settings.compute_capability.replace(".", "")
    if not hasattr(config, "set_compute_capability"):
        if not settings.native:
            raise EngineError("this TensorRT builds only for the GPU of this machine; cross-build with tensorrt-rtx")
        return
    if not hasattr(trt.ComputeCapability, name):
        if not settings.native:
            raise EngineError(f"this TensorRT does not build for compute capability {settings.compute_capability}")
        name = "CURRENT"
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)


def load_timing_cache(config: Any, path: Path | None) -> None:
    """Let the build use what earlier ones measured; a damaged or foreign file counts as empty."""
    if path is None:
        return
    content = b""
    with suppress(OSError):
        content = path.read_bytes()
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def save_timing_cache(config: Any, path: Path | None) -> None:
    """Keep what the build measured; where it cannot be written the next build measures again."""
    if path is None:
        return
    cache = config.get_timing_cache()
    if cache is not None:
        with suppress(OutputError):
            write_atomically(path, bytes(cache.serialize()))


class Messages(logging.Handler):
    """Collects the errors that TensorRT and its parser write, each once."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().removeprefix("[E] ").strip()
        if record.levelno == logging.ERROR and text not in self.errors:
            self.errors.append(text)


@contextmanager
def polygraphy_messages(flavour: Flavour, *, builds: bool = True) -> Iterator[Messages]:
    """Let Polygraphy use ``flavour``, and collect its messages instead of printing them.

    Args:
        flavour: that Polygraphy is imported for, where it has not been.
        builds: whether TensorRT is used through it; where it is not, one imported for the other flavour serves too.

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it was imported for the other flavour.
    """
    if builds or "polygraphy" not in sys.modules:
        choose_for_polygraphy(flavour)
    try:
        from polygraphy.logger import G_LOGGER, logger
    except ModuleNotFoundError as error:
        raise MissingExtraError("building engines", "tensorrt" if flavour.name == "tensorrt" else "rtx") from error
    if builds:
        choose_for_polygraphy(flavour)
    logger.COLORED_MODULE_PRESENT = False  # or it prints, once, that it misses a package
    messages, python_logger = Messages(), logging.getLogger(POLYGRAPHY_LOGGER)
    before, propagating = G_LOGGER.use_python_logging_system, python_logger.propagate
    G_LOGGER.use_python_logging_system, python_logger.propagate = True, False
    python_logger.addHandler(messages)
    try:
        yield messages
    finally:
        python_logger.removeHandler(messages)
        G_LOGGER.use_python_logging_system, python_logger.propagate = before, propagating


def said(messages: Messages, error: Exception) -> str:
    """What TensorRT said about its failure."""
    return "; ".join(messages.errors) or str(error)
