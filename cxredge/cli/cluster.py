"""``cxredge segment --ray``: what its run holds open; the counterpart of ``Session`` for a Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.cli import STOPPED
from cxredge.cli.run_options import RunOptions, identity_of, logging_to_stderr, writer_for
from cxredge.logs import log_event

if TYPE_CHECKING:
    from cxredge.cluster.actor import Order
    from cxredge.cluster.connection import Crew
    from cxredge.runs.discovery import Source
    from cxredge.runs.interruption import Interruption
    from cxredge.runs.journal import Entry, Journal
    from cxredge.runs.results import Target

ADDRESS = re.compile(r"local|auto|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
READ_SECONDS = 120.0
"""Of one file, where there is no ``--timeout``: actors read in processes, so that no file takes an actor with it."""


def parse_address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The address of a cluster; what is none is an input that was written behind ``--ray``."""
    if value is None or ADDRESS.fullmatch(value):
        return value
    raise click.BadParameter(f"{value!r} is none of local, auto, HOST:PORT; write inputs before --ray", ctx, param)


@dataclass(frozen=True)
class ClusterSession:
    """All that a run on a cluster holds open."""

    crew: Crew
    order: Order
    journal: Journal
    options: RunOptions
    interruption: Interruption
    model: str

    @property
    def backend(self) -> str:
        """What runs the model."""
        return self.order.expected.backend

    def entries(self, targets: Iterable[Target]) -> Generator[Entry, None, None]:
        """Segment ``targets``; see :func:`cxredge.cluster.work.segment_on`.

        Raises:
            Interrupted: a signal asked to stop.
        """
        from cxredge.cluster.work import segment_on

        return self.interruption.each(segment_on(self.crew, self.order, list(targets)), at_once=True)


def finish_on_cluster(output: Path, options: RunOptions) -> None:
    """Write ``results.parquet``, and remove parts of files that lost nodes have left.

    Raises:
        OutputError: the table cannot be written, or a file not be removed.
    """
    from cxredge.cluster.table import write_parquet
    from cxredge.runs.results import remove_parts

    remove_parts(output)
    write_parquet(output, with_identity=options.keep_identity)


@contextmanager
def open_cluster_session(
    address: str, inputs: Iterable[Source], output: Path, options: RunOptions, *, resume: bool
) -> Iterator[ClusterSession]:
    """Join a cluster, find out what its nodes run the model with, and open the output folder.

    Args:
        address: of the cluster.
        inputs: files, folders and URLs that the user named.
        output: the output folder, on a file system that all nodes share.
        options: of the run.
        resume: go on with the run whose results are there.

    Raises:
        CxredgeError: there is no such cluster, no node can load the model, or the folder cannot be used for this run.
    """
    from cxredge.cluster.actor import ModelOrder, Order, marked
    from cxredge.cluster.connection import connected
    from cxredge.cluster.work import find_crew
    from cxredge.contract import parse_contract
    from cxredge.runs.interruption import Interruption
    from cxredge.runs.journal import Journal
    from cxredge.runs.proof import full_path

    with logging_to_stderr(options), ExitStack() as outlasting_ray, connected(address):
        model = ModelOrder(
            full_path(options.model) if options.model else None, options.backend, not options.no_build, 1
        )
        crew, found = find_crew(model)
        contract = parse_contract(found.contract)
        log_event("cluster_joined", actors=crew.count, cores=crew.cores, gpus=crew.gpus)
        identity = identity_of("segment", inputs, options, found.digest, found.backend)
        journal = outlasting_ray.enter_context(Journal(output, identity, resume=resume))
        mark = outlasting_ray.enter_context(marked(output))
        order = Order(
            model=replace(model, backend=found.backend, cores=crew.cores),
            expected=found,
            output=full_path(output),
            mark=mark,
            write=writer_for(options, contract, found.digest),
            batch_size=options.batch_size,
            workers=options.workers,
            timeout=options.timeout or READ_SECONDS,
            keep_identity=options.keep_identity,
        )
        with Interruption(STOPPED) as interruption:
            yield ClusterSession(crew, order, journal, options, interruption, contract.name)
