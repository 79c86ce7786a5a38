"""The journal of a run: what is done, from which state of which source, and with which files.

It lies in the output folder as ``.cxredge/journal.jsonl``: a line that says what the run is, then a line
for each input, appended once the input's files are whole. ``--resume`` and ``cxredge watch`` believe an
entry only while its source and its files are what the entry says, so a run may be ended at any moment, by
a power cut too. ``results.jsonl`` and ``results.csv`` are made from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from cxredge.errors import OutputError
from cxredge.runs.proof import Proof, Signature, file_proof, source_signature
from cxredge.runs.results import Target, write_atomically

STATE_FOLDER = ".cxredge"
JOURNAL, LOCK = "journal.jsonl", "lock"
FORMAT = 1

REMEDY = "choose another folder, or pass --overwrite to start anew"


@dataclass(frozen=True)
class RunIdentity:
    """What must be alike for two runs to share an output folder, since it decides about the results.

    Attributes:
        command: that made it, ``segment`` or ``watch``.
        version: of cxredge.
        model: SHA-256 of the model.
        backend: that runs it; backends differ in the last bits.
        formats: what is written for each input.
        inputs: absolute paths of the files and folders; names of results depend on them.
    """

    command: str
    version: str
    model: str
    backend: str
    formats: tuple[str, ...]
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One input that is done.

    Attributes:
        source: absolute path.
        stem: as in :class:`~cxredge.runs.results.Target`; an entry's key.
        signature: of the source before it was read; ``None`` where it could not be asked for.
        files: proof of each file that was written, by its path below the output folder.
        record: the line of ``results.jsonl``.
        moved_to: where ``--move-done`` put the source.
    """

    source: str
    stem: str
    signature: Signature | None
    files: dict[str, Proof]
    record: dict[str, Any]
    moved_to: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the input could not be segmented."""
        return bool(self.record["status"] == "failed")


class Journal:
    """The journal of one output folder, locked for as long as it is open.

    Args:
        folder: the output folder; created.
        identity: of the run.
        resume: go on with what is there; else begin anew.

    Attributes:
        folder: the output folder.
        appended: entries that were added since it was opened.

    Raises:
        OutputError: another run is writing there, the run differs from the one whose results are there, or the
            folder cannot be written.
    """

    def __init__(self, folder: Path, identity: RunIdentity, *, resume: bool) -> None:
        self.folder = folder
        self._path = journal_of(folder)
        self._places: dict[str, int] = {}
        self.appended = 0
        self._lock = held_lock(folder)
        try:
            if resume and self._path.exists():
                self._read(identity)
            else:
                write_atomically(self._path, _line({"format": FORMAT, "run": asdict(identity)}))
            self._file: BinaryIO = self._path.open("r+b", buffering=0)
            self._end = self._file.seek(0, os.SEEK_END)
        except OSError as error:
            self._lock.release()
            raise OutputError(f"{self._path}: cannot be opened: {error.strerror or error}") from error
        except BaseException:
            self._lock.release()
            raise

    def _read(self, identity: RunIdentity) -> None:
        """Index the entries; what a kill or a power cut left of a line is cut off, or passed over."""
        with self._path.open("rb") as file:
            require_same_run(self.folder, parse_line(file.readline()), identity)
            end = file.tell()
            for place, line in _placed_lines(file):
                end = place + len(line)
                content = parse_line(line)
                if content is None:
                    continue
                if "removed" in content:
                    self._places.pop(content["removed"], None)
                else:
                    self._places[content["stem"]] = place
        if end < self._path.stat().st_size:
            os.truncate(self._path, end)

    def __len__(self) -> int:
        return len(self._places)

    def stems(self) -> tuple[str, ...]:
        """Keys of all entries, in the order of their first appearance."""
        return tuple(self._places)

    def entry(self, stem: str) -> Entry | None:
        """The latest entry of a stem."""
        place = self._places.get(stem)
        if place is None:
            return None
        try:
            with self._path.open("rb") as file:
                file.seek(place)
                content = parse_line(file.readline())
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be read: {error.strerror or error}") from error
        if content is None:
            raise OutputError(f"{self._path}: was changed while it was in use")
        return as_entry(content)

    def append(self, entry: Entry) -> None:
        """Add an entry; from then on its input counts as done."""
        place = self._write(asdict(entry))
        self._places[entry.stem] = place
        self.appended += 1

    def remove(self, stem: str) -> None:
        """Forget an entry."""
        self._write({"removed": stem})
        self._places.pop(stem, None)

    def _write(self, content: dict[str, Any]) -> int:
        line, place = _line(content), self._end
        try:
            while self._end < place + len(line):
                self._end += self._file.write(line[self._end - place :]) or 0
        except OSError as error:
            self._end = place
            raise OutputError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        return place

    def close(self) -> None:
        """Bring the journal to the disk and let others write to the folder."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        finally:
            self._file.close()
            self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def journal_of(folder: Path) -> Path:
    """Where the journal of an output folder lies."""
    return folder / STATE_FOLDER / JOURNAL


def held_lock(folder: Path) -> FileLock:
    """Take the lock of an output folder.

    Raises:
        OutputError: another run has it, or the folder cannot be written.
    """
    lock = FileLock(folder / STATE_FOLDER / LOCK, timeout=0)
    try:
        (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(f"{folder}: another run is writing there") from error
    except OSError as error:
        reason = "is not a folder" if folder.exists() and not folder.is_dir() else error.strerror or error
        raise OutputError(f"{folder}: cannot be written: {reason}") from error
    return lock


def require_same_run(folder: Path, header: dict[str, Any] | None, identity: RunIdentity) -> None:
    """Check that the run which left ``header`` in ``folder`` is the one of ``identity``.

    Raises:
        OutputError: it is another, which says in what; or it is from another version of the journal.
    """
    if header is None or header.get("format") != FORMAT or not isinstance(header.get("run"), dict):
        raise OutputError(f"{folder}: its journal is damaged or from another version of cxredge; {REMEDY}")
    for name, wanted in asdict(identity).items():
        was = header["run"].get(name)
        was = tuple(was) if isinstance(was, list) else was
        if was != wanted:
            raise OutputError(
                f"{folder}: holds results of a run with another {name.rstrip('s')} ({_shown(was)}, now "
                f"{_shown(wanted)}), which would be mixed; {REMEDY}"
            )


def still_holds(folder: Path, target: Target, entry: Entry | None) -> bool:
    """Whether ``entry`` spares doing ``target`` again: it succeeded, and neither source nor files have changed."""
    if entry is None or entry.failed or entry.source != target.address or entry.signature is None:
        return False
    return entry.signature == target_signature(target) and files_hold(folder, entry)


def target_signature(target: Target) -> Signature | None:
    """What tells whether an input has changed, of a file or of what is at a URL; ``None`` where there is none.

    Raises:
        InputError: the store of a URL cannot be reached.
    """
    if target.url is None:
        return source_signature(target.source)
    from cxredge.runs.remote import remote_signature

    return remote_signature(target.url)


def files_hold(folder: Path, entry: Entry) -> bool:
    """Whether every file of ``entry`` is there with the content that was written."""
    try:
        return all(file_proof(folder / name) == proof for name, proof in entry.files.items())
    except OSError:
        return False


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object in a whole line of a journal, or ``None`` where it is torn."""
    try:
        content = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def as_entry(content: dict[str, Any]) -> Entry:
    """The entry in a line's object."""
    signature = content["signature"]
    files = {name: (size, digest) for name, (size, digest) in content["files"].items()}
    return Entry(**{**content, "signature": signature and tuple(signature), "files": files})


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _placed_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    place = file.tell()
    for line in iter(file.readline, b""):
        if line.endswith(b"\n"):
            yield place, line
        place += len(line)


def _shown(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
