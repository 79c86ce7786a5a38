"""What a node has accepted and still has to do, in SQLite: a job for each object.

Every change is on the disk when its method returns (WAL, ``synchronous=FULL``), so that ``kill -9`` or a
power cut at any moment loses nothing that was acknowledged. Jobs hold SOP Instance UIDs and file names, nothing
of a patient.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cxredge.errors import OutputError

State: TypeAlias = Literal["waiting", "sending", "failed"]
STATES: tuple[State, ...] = ("waiting", "sending", "failed")
MOST_FAILED = 1000
"""Jobs that failed and are remembered; of older ones object and job are removed."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance TEXT NOT NULL UNIQUE,
    object TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    reason TEXT
);
CREATE INDEX IF NOT EXISTS jobs_in_turn ON jobs (state, tries, id);
CREATE TABLE IF NOT EXISTS results (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    file TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS results_of_job ON results (job);
"""


@dataclass(frozen=True)
class Job:
    """One accepted object.

    Attributes:
        number: of the job, in the order of acceptance.
        object: its file.
        tries: times that the present step was begun, this one included.
        results: files to send, once there are any.
    """

    number: int
    object: Path
    tries: int
    results: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the job."""
        return (self.object, *self.results)


class JobQueue:
    """Jobs on the disk; safe to use from several threads.

    Args:
        path: the database; files of jobs lie beside it or below.

    Raises:
        OutputError: it cannot be opened, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._lock = threading.RLock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise OutputError(f"{path}: the node's queue cannot be opened: {error}") from error
        self.changed = threading.Condition(self._lock)

    def add(self, instance: str, file: Path) -> bool:
        """Put an object into the queue.

        Args:
            instance: SOP Instance UID.
            file: its file.

        Returns:
            ``False`` where the same instance waits already: it is the same object, and ``file`` is not needed.
        """
        with self._transaction() as database:
            row = database.execute("SELECT id, state FROM jobs WHERE instance = ?", (instance,)).fetchone()
            if row is not None and row[1] != "failed":
                return False
            if row is not None:
                database.execute("DELETE FROM jobs WHERE id = ?", (row[0],))
            database.execute(
                "INSERT INTO jobs (instance, object, state) VALUES (?, ?, 'waiting')", (instance, self._name(file))
            )
            return True

    def take(self, state: State, now: float | None = None) -> Job | None:
        """The next job in a state that is due, its try counted; ``None`` where there is none.

        Those that were begun least often are first, so that one on which the node dies keeps no other waiting.
        """
        with self._transaction() as database:
            row = database.execute(
                "SELECT id, object, tries FROM jobs WHERE state = ? AND due <= ? ORDER BY tries, id LIMIT 1",
                (state, time.time() if now is None else now),
            ).fetchone()
            if row is None:
                return None
            database.execute("UPDATE jobs SET tries = tries + 1 WHERE id = ?", (row[0],))
            return Job(row[0], self._folder / row[1], row[2] + 1, self._results(row[0]))

    def segmented(self, job: Job, results: Sequence[Path]) -> None:
        """The results of a job are there and are to be sent."""
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO results (job, file) VALUES (?, ?)", [(job.number, self._name(file)) for file in results]
            )
            database.execute("UPDATE jobs SET state = 'sending', tries = 0, due = 0 WHERE id = ?", (job.number,))

    def postpone(self, job: Job, seconds: float, *, counted: bool = True) -> None:
        """Try a job again after a while; a try that failed for reasons that are not the job's is not counted."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET due = ?, tries = ? WHERE id = ?",
                (time.time() + seconds, job.tries if counted else job.tries - 1, job.number),
            )

    def finish(self, job: Job) -> None:
        """A job is done and forgotten."""
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (job.number,))

    def fail(self, job: Job, reason: str) -> tuple[Path, ...]:
        """A job cannot be done. Gives the files of older failed jobs, which are forgotten."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET state = 'failed', reason = ? WHERE id = ?", (reason, job.number))
            old = database.execute(
                "SELECT id, object FROM jobs WHERE state = 'failed' ORDER BY id DESC LIMIT -1 OFFSET ?", (MOST_FAILED,)
            ).fetchall()
            files = [file for number, name in old for file in (self._folder / name, *self._results(number))]
            database.executemany("DELETE FROM jobs WHERE id = ?", [(number,) for number, _ in old])
            return tuple(files)

    def counts(self) -> dict[State, int]:
        """Number of jobs by state."""
        with self._lock:
            found = dict(self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def reasons(self) -> list[tuple[str, str]]:
        """SOP Instance UID and reason of each job that failed, the oldest first."""
        with self._lock:
            query = "SELECT instance, reason FROM jobs WHERE state = 'failed' ORDER BY id"
            return [(str(instance), str(reason)) for instance, reason in self._database.execute(query)]

    def files(self) -> Iterable[Path]:
        """All files that jobs name."""
        with self._lock:
            rows = self._database.execute("SELECT object FROM jobs UNION ALL SELECT file FROM results").fetchall()
        return [self._folder / name for (name,) in rows]

    def wait(self, seconds: float) -> None:
        """Until something changes, or a time has passed."""
        with self.changed:
            self.changed.wait(seconds)

    def wake(self) -> None:
        """End every wait."""
        with self.changed:
            self.changed.notify_all()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _name(self, file: Path) -> str:
        """A file as it is remembered: below the database's folder, which may move."""
        return file.relative_to(self._folder).as_posix()

    def _results(self, number: int) -> tuple[Path, ...]:
        rows = self._database.execute("SELECT file FROM results WHERE job = ? ORDER BY rowid", (number,))
        return tuple(self._folder / name for (name,) in rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A change that is on the disk, whole, at the end; wakes whoever waits for one."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            self.changed.notify_all()
