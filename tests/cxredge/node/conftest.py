"""Nodes, peers and made radiographs for the tests of the DICOM node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cxredge.algorithm import Algorithm
from cxredge.bundle import bundled_model
from cxredge.node.acceptor import Address
from cxredge.node.limits import NodeLimits
from cxredge.node.service import Node, NodeConfig
from cxredge.node.worker import Engine
from cxredge.phantom import make_radiograph
from cxredge.runs.proof import model_digest
from cxredge.runs.reader_process import ThreadReader
from cxredge.sample import write_dicom
from cxredge.segmenter import Segmenter

from .peers import SMALL, Archive, Served


@pytest.fixture
def archive() -> Iterator[Archive]:
    one = Archive()
    yield one
    one.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Segmenter.load(threads=1) as segmenter:
        algorithm = Algorithm.of(segmenter.contract, model_digest(bundled_model()))
        yield Engine(segmenter, algorithm, ThreadReader(), ("dicom-seg",))


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start nodes in this process, which are closed at the end."""
    nodes: list[Node] = []

    def begin(limits: NodeLimits = SMALL, allowed: tuple[str, ...] = (), **options: Any) -> Node:
        state = options.pop("state", tmp_path / "state")
        address = Address("CXREDGE", "127.0.0.1", 0, allowed)
        used = options.pop("engine", engine)
        node = Node(NodeConfig(address, state, limits=limits, **options), used)
        nodes.append(node)
        return node

    yield begin
    for node in nodes:
        node.close()


@pytest.fixture(scope="session")
def radiograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small made radiograph."""
    path = tmp_path_factory.mktemp("made") / "made-small.dcm"
    write_dicom(path, make_radiograph(5, 256, 240).pixels, "MONOCHROME2")
    return path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start nodes in processes, which are killed at the end."""
    running: list[Served] = []

    def begin(*options: str, port: int = 0, name: str = "served") -> Served:
        running.append(Served(tmp_path / name, *options, port=port))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.kill()
