"""How a run is laid out over a cluster: how many actors, with what, and in which blocks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner

from cxredge.cli import STOPPED, main
from cxredge.cli.cluster import ClusterSession
from cxredge.cli.segment import command, run
from cxredge.cluster.actor import STOP, TARGETS, target_from
from cxredge.cluster.connection import Crew, crew_of_cores, crew_of_gpus, failures_told
from cxredge.cluster.work import LARGEST_BLOCK, block_size, blocks, entries_in, none_missing
from cxredge.errors import ClusterError
from cxredge.runs.interruption import Interruption
from cxredge.runs.journal import Entry, Journal, RunIdentity
from cxredge.runs.results import Target
from cxredge.runs.run import Plan, results_in_order


@pytest.mark.parametrize(
    ("cores", "crew"),
    [
        ([2, 2], Crew(2, 2)),
        ([64, 7, 1, 0], Crew(35, 2)),
        ([1, 1, 0], Crew(2, 1)),
    ],
)
def test_an_actor_for_every_two_cores(cores: list[int], crew: Crew) -> None:
    assert crew_of_cores({"CPU": float(number)} for number in cores) == crew
    assert crew.resources == {"num_cpus": crew.cores}


def test_an_actor_for_every_gpu_with_its_share_of_the_cores() -> None:
    crew = crew_of_gpus([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 16.0}, {"CPU": 16.0, "GPU": 1.0}])
    assert crew == Crew(9, 8, 1)
    assert crew.resources == {"num_gpus": 1}
    assert crew_of_gpus([{"CPU": 64.0}]) is None


def test_a_cluster_without_cores_is_refused() -> None:
    with pytest.raises(ClusterError, match="no node of the cluster offers a CPU"):
        crew_of_cores([{"CPU": 0.0}, {"memory": 1e9}])


def test_blocks_hold_every_target_once() -> None:
    targets = [Target(Path(f"/scans/{number}.png"), Path(str(number))) for number in range(10)]
    tables = list(blocks(iter(targets), 4))
    assert [table.num_rows for table in tables] == [4, 4, 2]
    assert [target_from(text) for table in tables for text in table.column(TARGETS).to_pylist()] == targets


def test_few_targets_are_spread_over_all_actors() -> None:
    assert block_size(1, 100) == 1
    assert block_size(40, 2) == 5
    assert block_size(10**6, 100) == LARGEST_BLOCK


def test_what_an_actor_complains_about_ends_the_run() -> None:
    with pytest.raises(ClusterError, match="node7: the disk is full"):
        list(entries_in([json.dumps({STOP: "node7: the disk is full"})]))


def test_too_few_entries_end_the_run() -> None:
    entry = Entry("/scans/a", "a", None, {}, {"input": "a", "status": "ok"})
    assert list(none_missing([entry], 1)) == [entry]
    with pytest.raises(ClusterError, match="1 results of 2"):
        list(none_missing([entry], 2))


def test_of_an_error_on_a_node_only_the_kind_is_told() -> None:
    from ray.exceptions import RayTaskError

    with pytest.raises(ClusterError, match=r"^the cluster failed: ValueError on a node$"), failures_told():
        raise RayTaskError("work", "Traceback: /scans/secret.png", ValueError("/scans/secret.png"))


def test_entries_that_come_in_another_order_give_lines_in_input_order(tmp_path: Path) -> None:
    targets = tuple(Target(Path(f"/scans/{name}"), Path(name)) for name in "abcde")
    made = {name: Entry(f"/scans/{name}", name, None, {}, {"input": name, "status": "ok"}) for name in "abcde"}
    plan = Plan(targets, frozenset(), ())
    with Journal(tmp_path, RunIdentity("segment", "1", "", "", (), ()), resume=False) as journal:
        lines = results_in_order(plan, journal, (made[name] for name in "cadbe"))
        assert next(lines) == (made["a"].record, True)
        assert journal.stems() == ("c", "a")
        assert [record["input"] for record, new in lines if new] == list("bcde")
        assert journal.appended == 5
        cut_off = results_in_order(plan, journal, (made[name] for name in "ca"))
        assert [record["input"] for record, _ in cut_off] == ["a"]


def test_a_table_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "results.parquet" / "in-the-way").mkdir(parents=True)
    options = Mock(logs=False, keep_identity=False)
    with (
        Journal(tmp_path, RunIdentity("segment", "1", "", "", (), ()), resume=False) as journal,
        Interruption(STOPPED) as interruption,
    ):
        session = ClusterSession(Crew(1, 1), Mock(), journal, options, interruption, "model")
        with pytest.raises(click.exceptions.Exit) as stopped:
            run(click.Context(command), session, Plan((), frozenset(), ()), ())
    assert stopped.value.exit_code == STOPPED


@pytest.mark.parametrize("address", ["scans", "ray://head:10001", "head"])
def test_what_is_no_address_is_refused_before_anything_is_started(tmp_path: Path, address: str) -> None:
    result = CliRunner().invoke(main, ["segment", "scans", "-o", str(tmp_path / "out"), "--ray", address])
    assert result.exit_code == 2
    assert "is none of local, auto, HOST:PORT; write inputs before --ray" in result.output


def test_without_ray_the_command_says_what_to_install(
    tmp_path: Path, one_image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(main, ["segment", str(one_image_folder), "-o", str(tmp_path / "out"), "--ray"])
    assert result.exit_code == 1
    assert "cxredge segment --ray needs the 'ray' extra: pip install 'cxredge[ray]'" in result.output
    assert not (tmp_path / "out").exists()
