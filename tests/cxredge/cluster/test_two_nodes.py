"""Two nodes on this machine, one of which is killed in the middle: the results are those of a run without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'cxredge[ray]'")

import pyarrow as pa
from pyarrow import parquet

from .conftest import Started, assert_same_results, finished, journalled, records, write_radiographs

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

Start = Callable[..., Started]


def kill_a_node(cluster: Cluster, process: Started, output: Path, after: int) -> int:
    """Kill a node that is at work, with all that runs on it, once ``after`` entries are there; gives how many."""
    while journalled(output) < after:
        assert process.poll() is None
        time.sleep(0.02)
    done = journalled(output)
    at_work = [node for node in cluster.worker_nodes if has_readers(node)]
    cluster.remove_node(at_work[0], allow_graceful=False)
    assert process.poll() is None
    return done


def has_readers(node: Any) -> bool:
    """Whether an actor of a node has started processes that read."""
    (raylet,) = node.all_processes["raylet"]
    return any(children(actor) for actor in children(raylet.process.pid))


def children(parent: int) -> list[int]:
    """Processes that a process has started and that still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = place.read_text().rpartition(")")[2].split()
            found += [int(place.parent.name)] if int(words[1]) == parent and words[0] != "Z" else []
    return found


def everything_below(parent: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    return [pid for child in children(parent) for pid in (child, *everything_below(child))]


def mixed_inputs(folder: Path, count: int) -> list[str | Path]:
    """A folder with bad files in it, a URL and a manifest: ``count`` radiographs in each, and 4 lines that fail."""
    scans = write_radiographs(folder / "scans", count, 512, 480)
    (scans / "damaged.png").write_bytes((scans / "0000.png").read_bytes()[:5000])
    (scans / "words.dcm").write_text("these are not the pixels you are looking for")
    stored = write_radiographs(folder / "store" / "stored", count, 512, 480)
    listed = write_radiographs(folder / "listed", count, 512, 480)
    paths = [*sorted(path.name for path in listed.iterdir()), "absent.png", (stored / "absent.png").as_uri()]
    names = [f"from-manifest/{number:03}" for number in range(len(paths))]
    parquet.write_table(pa.table({"path": paths, "name": names}), listed / "list.parquet")
    return [scans, stored.as_uri(), listed / "list.parquet"]


@pytest.mark.timeout(600)
def test_a_node_killed_in_the_middle_loses_nothing(
    cluster: Cluster, start: Start, tmp_path: Path, model_file: Path
) -> None:
    inputs = mixed_inputs(tmp_path, 14)
    inputs[1] = str(inputs[1]).replace("/stored", "")  # so that names do not meet those of the first folder
    options = ["--model", model_file, "--no-overlay"]
    on_cluster = start(*inputs, "-o", tmp_path / "out", *options, "--ray", cluster.address)
    done = kill_a_node(cluster, on_cluster, tmp_path / "out", after=1)
    finished(start(*inputs, "-o", tmp_path / "whole", *options), 3)
    finished(on_cluster, 3)
    assert_same_results(tmp_path / "out", tmp_path / "whole")
    lines = records(tmp_path / "out")
    assert done < len(lines) == 46
    assert [line["status"] for line in lines].count("failed") == 4
    assert list((tmp_path / "out").rglob("*.part")) == []
    table = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [(row["input"], row["status"], row["mask"]) for row in table] == [
        (line["input"], line["status"], line["mask"]) for line in lines
    ]
    assert "resume   42 of 46" in finished(start(*inputs, "-o", tmp_path / "out", *options, "--resume"), 3)
    assert_same_results(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_radiographs(cluster: Cluster, start: Start, tmp_path: Path, model_file: Path) -> None:
    scans = write_radiographs(tmp_path / "scans", 2000, 256, 232)
    options = ["--model", model_file, "--no-overlay"]
    finished(start(scans, "-o", tmp_path / "whole", *options), 0)
    on_cluster = start(scans, "-o", tmp_path / "out", *options, "--ray", cluster.address)
    assert kill_a_node(cluster, on_cluster, tmp_path / "out", after=700) < 1800
    finished(on_cluster, 0)
    assert_same_results(tmp_path / "out", tmp_path / "whole")
    assert len(records(tmp_path / "out")) == 2000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_asked_to_stop_ends_with_exit_code_4_and_leaves_no_process(
    start: Start, tmp_path: Path, model_file: Path
) -> None:
    scans = write_radiographs(tmp_path / "scans", 200, 1024, 960)
    options = [scans, "-o", tmp_path / "out", "--model", model_file, "--ray"]
    process = start(*options)
    while journalled(tmp_path / "out") < 10:
        assert process.poll() is None
        time.sleep(0.02)
    started = everything_below(process.pid)
    assert len(started) > 3
    process.terminate()
    told = finished(process, 4)
    done = journalled(tmp_path / "out")
    assert f"{done} of 200 are done; the same command with --resume does the rest" in told
    deadline = time.monotonic() + 30
    while any(Path("/proc", str(pid)).exists() for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert f"resume   {done} of 200" in finished(start(*options, "--resume"), 0)
    assert len(records(tmp_path / "out")) == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_killed_in_the_middle_is_made_up_for_by_resume(
    cluster: Cluster, start: Start, tmp_path: Path, model_file: Path
) -> None:
    scans = write_radiographs(tmp_path / "scans", 400, 1024, 960)
    options = ["--model", model_file, "--no-overlay"]
    on_cluster = [scans, "-o", tmp_path / "out", *options, "--ray", cluster.address]
    process = start(*on_cluster)
    while journalled(tmp_path / "out") < 50:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    done = journalled(tmp_path / "out")
    assert done < 400
    finished(start(scans, "-o", tmp_path / "whole", *options), 0)
    assert f"resume   {done} of 400" in finished(start(*on_cluster, "--resume"), 0)
    assert_same_results(tmp_path / "out", tmp_path / "whole")
