"""``cxredge serve``: a DICOM node that segments what it is sent."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from platformdirs import user_state_path

from cxredge.backends import BACKENDS
from cxredge.cli import STOPPED
from cxredge.errors import ConfigError, MissingExtraError
from cxredge.logs import FORMATS as LOG_FORMATS
from cxredge.logs import LEVELS, LogFormat, hide_logs, log_event, show_logs
from cxredge.runs.formats import Format

if TYPE_CHECKING:
    from cxredge.node.service import NodeConfig
    from cxredge.node.worker import Engine

TALKATIVE = ("pynetdicom", "pydicom", "highdicom", "uvicorn", "asyncio", "fastapi", "py.warnings")
"""Loggers of libraries, which may quote what a peer sent."""
READERS = 3
"""Processes that decode: for the queue, and for two HTTP requests."""
MODULES = frozenset({"pynetdicom", "fastapi", "uvicorn", "prometheus_client", "anyio", "starlette", "pydantic"})
RESULTS: dict[str, tuple[Format, ...]] = {
    "seg": ("dicom-seg",),
    "sc": ("dicom-sc",),
    "seg,sc": ("dicom-seg", "dicom-sc"),
}


@click.command("serve", short_help="Run a DICOM node that segments what it is sent.")
@click.option("--aet", default="CXREDGE", show_default=True, help="AE title of the node.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address for DICOM; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=11112, show_default=True, help="Port for DICOM.")
@click.option("--allow", metavar="AET,...", help="Calling AE titles that are accepted. [default: any]")
@click.option("--reply", metavar="AET@HOST:PORT", help="Where results go. [default: STATE/outbox]")
@click.option(
    "--results", type=click.Choice(list(RESULTS)), default="seg,sc", show_default=True, help="What is sent back."
)
@click.option(
    "--state", type=click.Path(path_type=Path), help="Folder of the queue. [default: the user's state folder]"
)
@click.option("--http", type=click.IntRange(0, 65535), metavar="PORT", help="Answer HTTP too, on this port.")
@click.option("--http-host", default="127.0.0.1", show_default=True, help="Address for HTTP.")
@click.option(
    "--tls",
    nargs=3,
    type=click.Path(path_type=Path),
    metavar="CERT KEY CA",
    help="PEM files: this node's certificate and key, and who signs for peers. Every peer needs a certificate.",
)
@click.option("--reply-tls", is_flag=True, help="Send results over TLS too.")
@click.option("--max-associations", type=click.IntRange(1, 400), default=256, show_default=True, help="At once.")
@click.option("--max-object", type=click.IntRange(1), default=512, show_default=True, help="MiB of one object.")
@click.option("--max-queue", type=click.IntRange(1), default=10_000, show_default=True, help="Objects that wait.")
@click.option("--min-free", type=click.IntRange(0), default=1024, show_default=True, help="MiB that stay free.")
@click.option("--model", type=click.Path(path_type=Path), help="Model file, or engine. [default: the bundled model]")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What runs the model.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
def command(log_format: LogFormat, log_level: str, **options: Any) -> None:
    """Run a DICOM node: what it receives by C-STORE is segmented, and sent on as DICOM segmentations.

    What was acknowledged is on the disk, and survives a kill or a power cut. SIGTERM stops the node cleanly; what
    waits then is done after the next start.
    """
    handler = show_logs(log_format, log_level)
    silence_libraries()
    try:
        serve(options)
    finally:
        hide_logs(handler)


def serve(options: dict[str, Any]) -> None:
    """Run the node until it is told to stop."""
    from cxredge.runs.interruption import Interrupted, Interruption

    try:
        from cxredge.node.service import Node
    except ModuleNotFoundError as error:
        if error.name not in MODULES:
            raise
        raise MissingExtraError("cxredge serve", "serve") from error
    config = node_config(options)
    with Interruption(STOPPED) as interruption, ExitStack() as opened:
        engine = open_engine(options, opened)
        with Node(config, engine) as node:
            try:
                while True:
                    interruption.sleep(1.0)
                    node.sweep()
            except Interrupted:
                log_event("node_stopping")


def node_config(options: dict[str, Any]) -> NodeConfig:
    """The node's configuration.

    Raises:
        click.BadParameter: an option is malformed.
    """
    from cxredge.limits import MEBIBYTE
    from cxredge.node.acceptor import Address, parse_titles
    from cxredge.node.limits import NodeLimits
    from cxredge.node.sender import parse_peer
    from cxredge.node.service import NodeConfig
    from cxredge.node.tls import TlsFiles

    try:
        (title,) = parse_titles(options["aet"])
        allowed = parse_titles(options["allow"]) if options["allow"] else ()
        reply = parse_peer(options["reply"]) if options["reply"] else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if options["reply_tls"] and not options["tls"]:
        raise ConfigError("--reply-tls needs --tls, whose certificate the peer is shown")
    return NodeConfig(
        Address(title, options["host"], options["port"], allowed),
        options["state"] or user_state_path("cxredge") / "node",
        reply,
        options["reply_tls"],
        TlsFiles(*options["tls"]) if options["tls"] else None,
        None if options["http"] is None else (options["http_host"], options["http"]),
        NodeLimits(
            associations=options["max_associations"],
            object_bytes=options["max_object"] * MEBIBYTE,
            queue=options["max_queue"],
            free_bytes=options["min_free"] * MEBIBYTE,
        ),
    )


def open_engine(options: dict[str, Any], opened: ExitStack) -> Engine:
    """Load the model and start what decodes."""
    from cxredge.algorithm import Algorithm
    from cxredge.bundle import bundled_model
    from cxredge.node.limits import NodeLimits
    from cxredge.node.worker import Engine
    from cxredge.runs.proof import model_digest
    from cxredge.runs.reader_process import ProcessReader
    from cxredge.segmenter import Segmenter

    segmenter = opened.enter_context(Segmenter.load(options["model"], backend=options["backend"]))
    segmenter.warm_up()
    reader = ProcessReader(READERS, NodeLimits().read_seconds)
    opened.callback(reader.close)
    algorithm = Algorithm.of(segmenter.contract, model_digest(options["model"] or bundled_model()))
    return Engine(segmenter, algorithm, reader, RESULTS[options["results"]])


def silence_libraries() -> None:
    """Keep what libraries say of peers' data out of the logs; what a thread dies of is logged by its kind alone."""
    for name in TALKATIVE:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    threading.excepthook = lambda failure: log_event(
        "thread_failed", logging.ERROR, kind=failure.exc_type.__name__, thread=getattr(failure.thread, "name", "")
    )
