"""TensorRT's messages in Python's logging, as ``cxredge.tensorrt``; nothing is shown unless logging is set up."""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import Any

LOGGER = logging.getLogger("cxredge.tensorrt")
LOGGER.addHandler(logging.NullHandler())  # or Python prints warnings by itself
LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
_said = threading.local()


def receive(severity: Any, message: str) -> None:
    """Pass one message on, and remember it for the calling thread where it is an error."""
    level = LEVELS.get(getattr(severity, "name", ""), logging.DEBUG)
    if level == logging.ERROR:
        _said.error = message.strip()
    LOGGER.log(level, "%s", message)


def forget_error() -> None:
    """Forget what :func:`last_error` would give, before a call that may fail."""
    _said.error = ""


def last_error() -> str:
    """What TensorRT last said about a failure in this thread."""
    return getattr(_said, "error", "") or "it gives no reason"


@cache
def logger_for(trt: Any) -> Any:
    """The ``trt.ILogger`` of this process; TensorRT keeps to the first that it is given.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
    """

    def log(_: Any, severity: Any, message: str) -> None:
        receive(severity, message)

    return type("PythonLog", (trt.ILogger,), {"log": log})()
