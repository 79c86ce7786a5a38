"""``python -m cxredge``: the command line."""

from cxredge.cli import main

main(prog_name="cxredge")
