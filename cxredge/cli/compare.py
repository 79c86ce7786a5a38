"""``cxredge compare``: results of several evaluations as one table."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare", short_help="Tabulate several evaluations.")
@click.argument("results", nargs=-1, required=True)
@click.option("--published", is_flag=True, help="Print the paper's Table 3 too.")
def command(results: tuple[str, ...], published: bool) -> None:
    """Print RESULTS, files of ``cxredge evaluate --json``, as one Markdown table.

    A result may be given as LABEL=FILE; otherwise its row has the file's name. Each cell holds the means
    without, with weak and with harsh shift.
    """
    from cxredge.evaluation.comparison import markdown_table, published_table, read_row

    rows = []
    for result in results:
        label, separator, file = result.rpartition("=")
        rows.append(read_row(Path(file), label if separator else None))
    click.echo(markdown_table(rows))
    if published:
        click.echo("\n" + published_table())
