"""What cxredge logs: Python's ``logging`` under the name ``cxredge``, quiet unless the host or the user asks.

One line an image with its durations and flags. An image is called by its line in ``results.jsonl``:
paths, which may hold a patient's name, and messages with them, stand in the results and in what is shown
to the user, never in a log.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
LOGGER = logging.getLogger("cxredge")
STATUS_LEVELS = {"ok": logging.INFO, "warning": logging.WARNING, "failed": logging.ERROR}
FIELDS = "cxredge_fields"
"""Attribute of a log record that holds what :func:`log_event` was given."""
IMAGE_FIELDS = ("status", "width", "height", "lung_area_fraction", "flags", "milliseconds")
"""Fields of a line of ``results.jsonl`` that go into the log."""


class EventFormatter(logging.Formatter):
    """A log record as one line: ``TIME LEVEL event key=value ...``, or a JSON object; times are UTC."""

    def __init__(self, kind: LogFormat) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        message = " ".join(record.getMessage().split())
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        if self._kind == "json":
            return json.dumps(
                {"time": moment, "level": record.levelname.lower(), "logger": record.name, "event": message, **fields},
                default=str,
            )
        words = (f"{name}={_text(value)}" for name, value in fields.items())
        return " ".join((moment, f"{record.levelname:7}", message, *words))


def show_logs(kind: LogFormat, level: str) -> logging.Handler:
    """Send the logs of this process to standard error; gives the handler for :func:`hide_logs`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(kind))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    return handler


def hide_logs(handler: logging.Handler) -> None:
    """Undo :func:`show_logs`."""
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True


def log_event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with fields; none of them may hold a path, or anything that tells who a patient is."""
    LOGGER.log(level, name, extra={FIELDS: fields})


def log_image(line: int, record: dict[str, Any]) -> None:
    """Log one image.

    Args:
        line: its line in ``results.jsonl``, from 1.
        record: that line.
    """
    fields = {name: record[name] for name in IMAGE_FIELDS if record.get(name) not in (None, [], {})}
    log_event("image", STATUS_LEVELS[record["status"]], line=line, **fields)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{_text(part)}" for name, part in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
