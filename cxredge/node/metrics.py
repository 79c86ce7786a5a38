"""What a node counts, for Prometheus: numbers and kinds of outcomes, never names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cxredge.node.queue import JobQueue
from cxredge.node.state import StateFolder

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one node, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.associations = Counter(
            "cxredge_associations", "Associations by what became of them.", ["outcome"], registry=self.registry
        )
        self.received = Counter(
            "cxredge_received",
            "Objects by the DICOM status that they were answered with.",
            ["status"],
            registry=self.registry,
        )
        self.segmented = Counter(
            "cxredge_segmented", "Objects by what became of them.", ["outcome"], registry=self.registry
        )
        self.sent = Counter(
            "cxredge_sent", "Attempts to send results, by outcome.", ["outcome"], registry=self.registry
        )
        self.requests = Counter("cxredge_http_requests", "Answers to POST /segment.", ["code"], registry=self.registry)
        self.seconds = Histogram(
            "cxredge_segment_seconds", "From reading an object to its results.", buckets=SECONDS, registry=self.registry
        )
        self._jobs = Gauge("cxredge_jobs", "Objects on the disk, by state.", ["state"], registry=self.registry)
        self._free = Gauge("cxredge_free_bytes", "Free on the disk with the state folder.", registry=self.registry)

    def page(self, queue: JobQueue, state: StateFolder) -> bytes:
        """All of them as Prometheus reads them, with the queue as it is now."""
        for name, number in queue.counts().items():
            self._jobs.labels(name).set(number)
        self._free.set(state.free_bytes)
        return generate_latest(self.registry)
