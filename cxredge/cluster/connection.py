"""The Ray cluster that a run works on: started here for the run, or one that is there, and what its nodes offer."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cxredge.errors import ClusterError
from cxredge.libraries.open_ray import import_silently, quiet
from cxredge.pipeline import available_cores
from cxredge.runs.interruption import SIGNALS

LOCAL = "local"
"""Address that stands for Ray started on this machine for the run."""
CORES_PER_ACTOR = 2
OBJECT_STORE_BYTES = 100 << 20
"""Of Ray started here; only names and records pass through it."""


@dataclass(frozen=True)
class Crew:
    """The actors that a cluster has room for.

    Attributes:
        count: of actors.
        cores: that each works with.
        gpus: that each has for itself.
    """

    count: int
    cores: int
    gpus: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for each actor."""
        return {"num_gpus": self.gpus} if self.gpus else {"num_cpus": self.cores}


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster at ``address``, which is left, or ended if it was started here, at the end.

    Signal handlers are afterwards what they were.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no cluster at the address.
    """
    own = address == LOCAL
    with quiet(own_cluster=own), handlers_kept():
        import_silently()
        import ray

        folder = tempfile.mkdtemp(prefix="cxredge-ray-") if own else None
        try:
            join(address, folder)
            yield
        finally:
            ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


def join(address: str, folder: str | None) -> None:
    """Start Ray with its files in ``folder``, or connect to the cluster at ``address`` where that is ``None``."""
    import ray

    options: dict[str, Any] = {"address": address}
    if folder is not None:
        options |= {
            "num_cpus": available_cores(),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
    try:
        ray.init(log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = "Ray cannot be started here" if folder else f"there is no Ray cluster at {address} that can be joined"
        raise ClusterError(f"{what}: {reason}") from error


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Have the signal handlers afterwards as they were: Ray takes SIGTERM."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn what ends the cluster's work into a :class:`ClusterError`.

    Of an error in the work itself only the kind is told: its message is a traceback, and names files.
    """
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        kind = type(getattr(error.cause, "__cause__", None) or error.cause).__name__
        raise ClusterError(f"the cluster failed: {kind} on a node") from None
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(f"the cluster failed: {reason}") from error


def nodes() -> list[dict[str, float]]:
    """What each living node offers."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def crew_of_cores(nodes: Iterable[Mapping[str, float]]) -> Crew:
    """An actor for every two cores of a node; where no node has two, one for every core.

    Raises:
        ClusterError: no node offers a core.
    """
    cores = [int(node.get("CPU", 0)) for node in nodes]
    each = min(CORES_PER_ACTOR, max(cores, default=0))
    if each == 0:
        raise ClusterError("no node of the cluster offers a CPU; start nodes with 'ray start --num-cpus N'")
    return Crew(sum(number // each for number in cores), each)


def crew_of_gpus(nodes: Iterable[Mapping[str, float]]) -> Crew | None:
    """An actor for every GPU, each with its share of the node's cores; ``None`` where there is no GPU."""
    with_gpus = [(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in nodes if node.get("GPU", 0) >= 1]
    if not with_gpus:
        return None
    return Crew(sum(gpus for gpus, _ in with_gpus), max(1, min(cores // gpus for gpus, cores in with_gpus)), 1)
