from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxredge.errors import OutputError
from cxredge.node import queue as queue_module
from cxredge.node.queue import JobQueue
from cxredge.node.state import StateFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "objects").mkdir()
    return tmp_path


def filled(folder: Path, number: int) -> JobQueue:
    queue = JobQueue(folder / "queue.sqlite")
    for one in range(number):
        assert queue.add(f"1.2.{one}", folder / "objects" / f"{one}.dcm")
    return queue


def test_jobs_come_in_the_order_of_arrival(folder: Path) -> None:
    queue = filled(folder, 3)
    jobs = [queue.take("waiting") for _ in range(3)]
    assert [job.object.name for job in jobs if job] == ["0.dcm", "1.dcm", "2.dcm"]


def test_an_instance_that_waits_is_not_taken_twice(folder: Path) -> None:
    queue = filled(folder, 1)
    assert not queue.add("1.2.0", folder / "objects" / "again.dcm")
    assert queue.counts()["waiting"] == 1


def test_an_instance_that_was_done_or_failed_may_come_again(folder: Path) -> None:
    queue = filled(folder, 2)
    first, second = queue.take("waiting"), queue.take("waiting")
    assert first
    assert second
    queue.finish(first)
    assert queue.fail(second, "broken") == ()
    assert queue.add("1.2.0", folder / "objects" / "a.dcm")
    assert queue.add("1.2.1", folder / "objects" / "b.dcm")
    assert queue.counts() == {"waiting": 2, "sending": 0, "failed": 0}


def test_one_that_was_begun_often_keeps_no_other_waiting(folder: Path) -> None:
    queue = filled(folder, 1)
    for _ in range(3):
        queue.take("waiting")
    queue.add("1.2.9", folder / "objects" / "9.dcm")
    job = queue.take("waiting")
    assert job
    assert (job.object.name, job.tries) == ("9.dcm", 1)


def test_a_postponed_job_waits_its_time(folder: Path) -> None:
    queue = filled(folder, 1)
    job = queue.take("waiting")
    assert job
    queue.postpone(job, 100)
    assert queue.take("waiting") is None
    later = queue.take("waiting", time.time() + 101)
    assert later
    assert later.tries == 2
    queue.postpone(later, 0, counted=False)
    again = queue.take("waiting")
    assert again
    assert again.tries == 2


def test_results_stay_with_their_job(folder: Path) -> None:
    queue = filled(folder, 1)
    job = queue.take("waiting")
    assert job
    results = (folder / "results" / "a.dcm", folder / "results" / "b.dcm")
    queue.segmented(job, results)
    assert queue.take("waiting") is None
    sending = queue.take("sending")
    assert sending
    assert (sending.results, sending.tries) == (results, 1)
    assert set(queue.files()) == {job.object, *results}
    queue.finish(sending)
    assert list(queue.files()) == []


def test_old_failures_are_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MOST_FAILED", 2)
    queue = filled(folder, 4)
    removed = []
    for _ in range(4):
        job = queue.take("waiting")
        assert job
        removed += queue.fail(job, "broken")
    assert [file.name for file in removed] == ["0.dcm", "1.dcm"]
    assert queue.reasons() == [("1.2.2", "broken"), ("1.2.3", "broken")]


def test_what_was_added_survives_the_end_of_the_process(folder: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from cxredge.node.queue import JobQueue\n"
        "folder = Path(sys.argv[1]); queue = JobQueue(folder / 'queue.sqlite')\n"
        "queue.add('1.2.3', folder / 'objects' / 'x.dcm'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, folder]).returncode == -9
    assert JobQueue(folder / "queue.sqlite").counts()["waiting"] == 1


def test_the_folder_may_move(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    queue = filled(before, 1)
    queue.close()
    before.rename(after)
    job = JobQueue(after / "queue.sqlite").take("waiting")
    assert job
    assert job.object == after / "objects" / "0.dcm"


def test_every_change_is_synchronous(folder: Path) -> None:
    queue = filled(folder, 0)
    assert queue._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert queue._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_database_is_named(folder: Path) -> None:
    (folder / "queue.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(OutputError, match=r"queue\.sqlite: the node's queue cannot be opened"):
        JobQueue(folder / "queue.sqlite")


def test_a_change_that_fails_changes_nothing(folder: Path) -> None:
    queue = filled(folder, 1)
    job = queue.take("waiting")
    assert job
    queue._database.execute("DROP TABLE results")
    with pytest.raises(sqlite3.Error):
        queue.segmented(job, [folder / "results" / "a.dcm"])
    assert queue.counts()["waiting"] == 1


def test_files_of_no_job_are_removed(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    (state.incoming / "half.dcm").write_bytes(b"x")
    kept = state.keep(state.incoming / "half.dcm")
    stranger = state.write_result(b"y")
    assert state.remove_strangers([kept]) == 1
    assert kept.exists()
    assert not stranger.exists()


def test_two_nodes_share_no_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    with pytest.raises(OutputError, match="another node uses it"):
        StateFolder(tmp_path / "state")
    state.close()
    StateFolder(tmp_path / "state").close()


def test_only_the_user_reads_the_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    assert state.path.stat().st_mode & 0o077 == 0
