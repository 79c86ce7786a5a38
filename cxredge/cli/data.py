"""``cxredge data``: what is in data sets, and whether one may train on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.cli import NOTHING_DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cxredge.data.audit import Audit, SetAudit
    from cxredge.data.dataset import Case

MOST_NAMED = 20
"""Findings of one kind that are printed; the JSON file has all."""


@click.group("data", short_help="Check data sets.")
def command() -> None:
    """Look at data sets: folders with images/, manifest.csv and, where labelled, masks/ and infection/."""


@command.command("check", epilog="Exit codes: 0 nothing wrong or warnings only, 1 something to mend, 2 wrong usage.")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all that is found to this file.")
@click.pass_context
def check(ctx: click.Context, folders: tuple[Path, ...], json_file: Path | None) -> None:
    """Check the data sets DIR, each alone and all against each other, before training on them.

    Counts, sizes and bit depths; unreadable and unpaired files; empty masks; the same radiograph twice, also
    cropped or with another contrast; patients in the training split and a held-out split (val, test,
    external-test). A training image that is also a held-out image fails the check.
    """
    from cxredge.data.audit import audit
    from cxredge.data.dataset import open_dataset
    from cxredge.runs.results import write_atomically

    found = audit([open_dataset(folder) for folder in folders])
    for each in found.sets:
        print_set(each)
    print_findings(found)
    if json_file is not None:
        write_atomically(json_file, json.dumps(found.to_dict(), indent=2).encode())
    if found.leaks or found.errors:
        ctx.exit(NOTHING_DONE)


def print_set(each: SetAudit) -> None:
    """Print the table of one data set."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(each.dataset.folder), title_justify="left", show_header=False)
    sizes = {f"{width}x{height}": count for (width, height), count in each.sizes.items()}
    bits = {f"{bits} bit": count for bits, count in each.bits.items()}
    table.add_row("images", str(len(each.dataset.cases)))
    table.add_row("splits", counts(each.splits))
    table.add_row("width x height", counts(sizes))
    table.add_row("stored as", counts(bits))
    table.add_row("lung masks", str(each.masks))
    Console().print(table)


def counts(numbers: Mapping[str, int], most: int = 6) -> str:
    """Counts by name on one line, the ``most`` first."""
    shown = [f"{name}: {number}" for name, number in list(numbers.items())[:most]]
    more = [f"{len(numbers) - most} more"] if len(numbers) > most else []
    return ", ".join(shown + more) or "-"


def print_findings(found: Audit) -> None:
    """Print what is wrong, in plain words, the worst last."""
    from cxredge.data.audit import ERRORS

    findings = [finding for each in found.sets for finding in each.findings]
    leaks = found.leaks
    list_lines(
        "warning: {} of the same radiograph twice, not across training and held-out splits",
        [str(pair) for pair in found.duplicates if not pair.leak],
        "pair",
    )
    list_lines(
        "warning: {} in the training split and a held-out split; training leaves these training rows out",
        [
            f"{shared.dataset}, patient {shared.patient}: training {names(shared.training)}; "
            f"held out {names(shared.held_out)}"
            for shared in found.shared_patients
        ],
        "patient",
    )
    for kind in sorted({finding.kind for finding in findings}, key=lambda kind: kind in ERRORS):
        word = "error" if kind in ERRORS else "warning"
        list_lines(f"{word}: {{}}: {kind}", [f.detail or str(f.file) for f in findings if f.kind == kind], "file")
    list_lines(
        "error: {} of one radiograph for training and for testing; leave the training row out, or change a split",
        [f"{pair} (similarity {pair.similarity:.3f})" for pair in leaks],
        "pair",
    )
    if not findings and not found.duplicates and not found.shared_patients:
        click.echo("nothing wrong")


def names(cases: Iterable[Case]) -> str:
    """Names of cases on one line."""
    return ", ".join(case.name for case in cases)


def list_lines(heading: str, lines: list[str], noun: str) -> None:
    """Print a heading with the number of lines in place of ``{}``, and the lines; nothing if there are none."""
    if not lines:
        return
    click.echo(heading.format(f"{len(lines)} {noun}{'' if len(lines) == 1 else 's'}"))
    for line in lines[:MOST_NAMED]:
        click.echo(f"  {line}")
    if len(lines) > MOST_NAMED:
        click.echo(f"  ... and {len(lines) - MOST_NAMED} more (--json has all)")
