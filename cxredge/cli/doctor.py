"""``cxredge doctor``: what cxredge finds on this machine."""

from __future__ import annotations

import click


@click.command("doctor", short_help="Show what cxredge finds on this machine.")
def command() -> None:
    """Show versions, backends, GPU, decoders, cache and the bundled model."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cxredge.diagnosis import diagnose

    table = Table(show_header=False, title="cxredge doctor", title_justify="left")
    for finding in diagnose():
        table.add_row(finding.subject, "[green]yes[/]" if finding.found else "[yellow]no[/]", escape(finding.detail))
    Console().print(table)
