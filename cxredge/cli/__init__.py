"""The command line: ``cxredge COMMAND``. Each command's module is imported only when it is called.

Exit codes: 0 every input ``ok`` or ``warning``; 1 nothing could be done; 2 wrong usage; 3 some inputs
failed; 4 stopped before the end (disk full, folder gone, Ctrl-C, SIGTERM).
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any

import click

from cxredge import __version__
from cxredge.errors import CxredgeError, printable

NOTHING_DONE = 1
SOME_FAILED = 3
STOPPED = 4

COMMANDS = {
    "segment": "Segment the lungs in radiographs.",
    "watch": "Segment radiographs as they arrive in a folder.",
    "sample": "Write a few made radiographs to try cxredge on.",
    "evaluate": "Score a model on labelled data sets.",
    "compare": "Tabulate several evaluations.",
    "data": "Check data sets before training.",
    "train": "Train the networks.",
    "average": "Average a checkpoint with the one that it started from.",
    "export": "Turn a checkpoint into a model file.",
    "unfold": "Turn a model file back into a checkpoint.",
    "calibrate": "Quantise a model to INT8.",
    "thresholds": "Derive a model's quality flags from radiographs.",
    "build-engine": "Compile a model for an NVIDIA GPU.",
    "inspect": "Show what is in a model file, an engine or a checkpoint.",
    "serve": "Run a DICOM node that segments what it is sent.",
    "web-demo": "Write a page that segments in the browser.",
    "benchmark": "Measure a model's speed stage by stage.",
    "doctor": "Show what cxredge finds on this machine.",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports their modules on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"cxredge.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that the user can mend becomes its message and exit code 1.

        Warnings of libraries are not shown, unless Python was told to (``-W``, ``PYTHONWARNINGS``).
        """
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        try:
            return super().invoke(ctx)
        except CxredgeError as error:
            click.echo("\n".join(map(printable, f"cxredge: {error}".split("\n"))), err=True)
            ctx.exit(NOTHING_DONE)


@click.group(
    cls=LazyGroup,
    epilog="Exit codes: 0 all done, 1 nothing could be done, 2 wrong usage, 3 some inputs failed, 4 stopped early.",
)
@click.version_option(__version__, prog_name="cxredge")
def main() -> None:
    """Lung segmentation of chest radiographs at the edge."""
