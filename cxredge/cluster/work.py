"""The driver's side: targets go out in blocks through Ray Data, entries come back in the order in which they are done.

Ray gives a block that was lost with its actor or node to another; files are written whole or not at all and are the
same however often, so that a block done twice does no harm. The driver alone keeps the journal.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from cxredge.cluster.actor import ENTRIES, STOP, TARGETS, Found, ModelOrder, Order, SegmentingActor, survey, target_text
from cxredge.cluster.connection import Crew, crew_of_cores, crew_of_gpus, failures_told, nodes
from cxredge.errors import ClusterError
from cxredge.runs.journal import Entry, as_entry
from cxredge.runs.results import Target

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_BLOCK = 64
"""Targets that are done by one call of an actor, and again where that is lost."""
BLOCKS_PER_ACTOR = 4
"""At least, where there are few targets, so that all actors end at about the same time."""
ON_GPU = "tensorrt"


def find_crew(order: ModelOrder) -> tuple[Crew, Found]:
    """Load the model on one node, and say which actors the cluster has room for.

    A backend that computes on GPUs gets an actor for each; ``auto`` takes it where a GPU's node has it.

    Raises:
        ClusterError: no node can run the model.
    """
    resources = nodes()
    with_gpus = crew_of_gpus(resources) if order.backend in (ON_GPU, "auto") else None
    if with_gpus:
        found = ask(order, with_gpus)
        if found.backend == ON_GPU:
            return with_gpus, found
    elif order.backend == ON_GPU:
        raise ClusterError("no node of the cluster offers a GPU, which the tensorrt backend needs")
    crew = crew_of_cores(resources)
    return crew, ask(order, crew)


def ask(order: ModelOrder, crew: Crew) -> Found:
    """Let a node load the model.

    Raises:
        ClusterError: it cannot.
    """
    import ray

    with failures_told():
        answer = ray.get(ray.remote(survey).options(**crew.resources).remote(replace(order, cores=crew.cores)))
    if isinstance(answer, Found):
        return answer
    raise ClusterError(str(answer))


def segment_on(crew: Crew, order: Order, targets: Sequence[Target]) -> Generator[Entry, None, None]:
    """Segment targets with a crew; yields entries as they come.

    Raises:
        ClusterError: a node does not fit the run, or the cluster failed.
    """
    import ray.data
    from ray.data import ActorPoolStrategy

    if not targets:
        return
    tables = list(blocks(targets, block_size(len(targets), crew.count)))
    with failures_told():
        dataset = ray.data.from_arrow(tables).map_batches(
            SegmentingActor,
            fn_constructor_args=(order,),
            batch_size=None,
            compute=ActorPoolStrategy(min_size=1, max_size=crew.count, initial_size=min(crew.count, len(tables))),
            **crew.resources,
        )
        batches = dataset.iter_batches(batch_size=None, prefetch_batches=0)
        yield from none_missing((entry for batch in batches for entry in entries_in(batch[ENTRIES])), len(targets))


def none_missing(entries: Iterable[Entry], count: int) -> Iterator[Entry]:
    """Pass ``entries`` on.

    Raises:
        ClusterError: at their end, if they were not ``count``.
    """
    came = 0
    for entry in entries:
        came += 1
        yield entry
    if came != count:
        raise ClusterError(f"the cluster gave {came} results of {count}")


def block_size(count: int, actors: int) -> int:
    """Targets in a block."""
    return max(1, min(LARGEST_BLOCK, -(-count // (BLOCKS_PER_ACTOR * actors))))


def blocks(targets: Iterable[Target], size: int) -> Iterator[pa.Table]:
    """The targets as tables of ``size`` rows."""
    import pyarrow as pa

    remaining = iter(targets)
    while some := list(islice(remaining, size)):
        yield pa.table({TARGETS: [target_text(target) for target in some]})


def entries_in(texts: Sequence[Any]) -> Iterator[Entry]:
    """The entries that an actor has given.

    Raises:
        ClusterError: it could not go on.
    """
    for text in texts:
        content = json.loads(str(text))
        if STOP in content:
            raise ClusterError(content[STOP])
        yield as_entry(content)
