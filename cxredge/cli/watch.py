"""``cxredge watch``: segment radiographs as they arrive in a folder."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxredge.cli import STOPPED
from cxredge.cli.display import Line, shown
from cxredge.cli.run_options import Session, open_session, options_from, run_options
from cxredge.errors import InputError, OutputError
from cxredge.logs import log_event

if TYPE_CHECKING:
    from cxredge.runs.journal import Entry
    from cxredge.runs.results import ResultsFile, Target
    from cxredge.runs.watch import Arrivals

SECONDS_A_FILE = 120.0
"""Time limit for reading one file, unless another is given: nobody sits beside a watch."""


@click.command("watch", short_help="Segment radiographs as they arrive in a folder.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@run_options(timeout=SECONDS_A_FILE)
@click.option(
    "--interval", type=click.FloatRange(0.05), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option(
    "--settle",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Seconds for which a file's size and time must not change before it is complete.",
)
@click.option("--move-done", type=click.Path(path_type=Path), help="Move radiographs that are done into this folder.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folder: Path,
    output: Path,
    interval: float,
    settle: float,
    move_done: Path | None,
    **others: Any,
) -> None:
    """Segment radiographs as they arrive in FOLDER, until Ctrl-C or SIGTERM; then exit code 0.

    Results are those of 'cxredge segment', under each file's whole name (scan.dcm.mask.png). The watch can be
    ended and started again at any moment: what is done is not done again, unless the file has changed.
    results.csv is made when it ends.
    """
    from cxredge.runs.interruption import Interrupted
    from cxredge.runs.results import ResultsFile, remove_file, remove_parts
    from cxredge.runs.run import kept_line
    from cxredge.runs.table import TABLE, write_table
    from cxredge.runs.watch import Arrivals

    if not folder.is_dir():
        raise InputError("is not a folder", folder)
    options = options_from(others)
    with open_session("watch", [folder], output, options, resume=True) as session:
        journal = session.journal
        remove_parts(output)
        remove_file(output / TABLE)
        arrivals = Arrivals(folder, [output, *([move_done] if move_done else [])], settle)
        watch = Watch(session, arrivals, folder, move_done, interval)
        try:
            kept = (kept_line(journal, stem) for stem in journal.stems())
            with ResultsFile(output, overwrite=True, kept=kept) as file, closing(watch.lines(file)) as lines:
                for _ in shown(lines, None, logs=options.logs):
                    pass
        except Interrupted:
            pass
        except OutputError as error:
            tell(session, f"stopped: {error}", "watch_stopped")
            ctx.exit(STOPPED)
        with ResultsFile(output, overwrite=True, kept=(kept_line(journal, stem) for stem in journal.stems())):
            pass
        write_table(output)
        tell(session, f"{len(journal)} radiographs are done", "watch_ended", images=len(journal))


@dataclass(frozen=True)
class Watch:
    """A watch that is going on."""

    session: Session
    arrivals: Arrivals
    folder: Path
    move_done: Path | None
    interval: float

    def lines(self, file: ResultsFile) -> Generator[Line, None, None]:
        """Do what arrives; write each line of ``results.jsonl`` and pass it on.

        Raises:
            Interrupted: a signal asked to stop.
            OutputError: a result cannot be written.
        """
        reachable = True
        while True:
            try:
                complete = self.arrivals.poll()
            except OSError as error:
                if reachable:
                    tell(self.session, f"{self.folder}: cannot be reached, waiting: {error.strerror}", "folder_lost")
                reachable, complete = False, []
            else:
                reachable = True
            for entry in self.done(complete):
                file.write(entry.record)
                yield file.lines, entry.record
            self.session.interruption.sleep(self.interval)

    def done(self, complete: list[Path]) -> Iterator[Entry]:
        """Segment what is new among the complete files; each is in the journal, then moved where that was asked."""
        from cxredge.runs.proof import source_signature

        journal = self.session.journal
        to_do = list(self.to_do(complete))
        if not to_do:
            return
        with closing(self.session.entries(to_do)) as entries:
            for target, entry in zip(to_do, entries, strict=True):
                if entry.failed and source_signature(target.source) is None:
                    self.arrivals.forget(target.source)  # it is gone, perhaps with its server: not its fault
                    continue
                place = self.place(target) if not entry.failed else None
                journal.append(replace(entry, moved_to=None if place is None else str(place)))
                if place:
                    self.move(target.source, place)
                yield entry

    def to_do(self, complete: list[Path]) -> Iterator[Target]:
        """Those of the complete files whose results are not there; of the others the move is made up for."""
        from cxredge.runs.journal import still_holds
        from cxredge.runs.run import remove_files
        from cxredge.runs.watch import watched_target

        journal = self.session.journal
        for path in complete:
            target = watched_target(path, self.folder, journal)
            entry = journal.entry(target.stem.as_posix())
            if not still_holds(journal.folder, target, entry):
                if entry:
                    remove_files(journal.folder, entry)
                yield target
            elif entry and (place := self.place(target)):
                journal.append(replace(entry, moved_to=str(place)))
                self.move(path, place)

    def place(self, target: Target) -> Path | None:
        """Where a source goes when it is done; ``None`` where it stays."""
        from cxredge.runs.watch import resting_place

        return None if self.move_done is None else resting_place(target, self.move_done)

    def move(self, source: Path, place: Path) -> None:
        """Move a source that is done; where that fails it stays, and the next start tries again."""
        from cxredge.runs.watch import move_source

        try:
            move_source(source, place)
        except OutputError as error:
            tell(self.session, str(error), "not_moved")


def tell(session: Session, message: str, event: str, **fields: Any) -> None:
    """Tell the user something, or the log where that takes the user's place."""
    log_event(event, **fields)
    if not session.options.logs:
        from cxredge.errors import printable

        click.echo(f"cxredge: {printable(message)}", err=True)
