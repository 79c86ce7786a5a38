"""The exceptions that cxredge raises for what a user or a site can mend.

Every message says what was wrong, with which file, and what to do. The command line prints the
message and exits with a documented code; anything that is not a :class:`CxredgeError` is a bug.
"""

from __future__ import annotations

import os
import re

QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)""")
"""A text or bytes as Python shows them, also where the end is missing."""
LONGEST_MESSAGE = 300
"""Characters of a library's message that are passed on."""


def printable(text: str) -> str:
    """``text`` with control characters as escapes: no file's name or content may command a terminal or break a line."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def one_line(error: Exception) -> str:
    """The message of a library's error on one line, without the values that it quotes: they may name a patient."""
    text = QUOTED.sub("'...'", " ".join(str(error).split()))
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 3]}..."


class CxredgeError(Exception):
    """Base of all errors that cxredge raises on purpose."""


class InputError(CxredgeError):
    """A radiograph cannot be read, or is not something that can be segmented.

    Args:
        reason: what is wrong, without the file's name; kept in printable characters.
        path: the file, where there is one.
    """

    def __init__(self, reason: str, path: str | os.PathLike[str] | None = None) -> None:
        self.reason = printable(reason)
        super().__init__(self.reason if path is None else f"{printable(os.fsdecode(path))}: {self.reason}")
        self.path = path


class OutputError(CxredgeError):
    """A result cannot be written, or would overwrite another."""


class ModelError(CxredgeError):
    """A model file is missing, damaged, or carries no valid contract."""


class BackendError(CxredgeError):
    """An inference backend is not installed, does not fit the model, or failed to run."""


class BusyError(CxredgeError):
    """More radiographs were submitted than may wait at once."""


class ConfigError(CxredgeError):
    """A configuration file has a wrong or unknown field."""


class DatasetError(CxredgeError):
    """A data set folder is incomplete or inconsistent."""


class CheckpointError(CxredgeError):
    """A training checkpoint is missing, damaged, or belongs to another configuration."""


class ParityError(CxredgeError):
    """A converted model does not give the masks of the one that it was made from."""


class CalibrationError(CxredgeError):
    """INT8 calibration cannot be done with these samples, or its result does not pass the gate."""


class EngineError(CxredgeError):
    """A TensorRT engine cannot be built, or does not belong to this model, version or GPU."""


class ClusterError(CxredgeError):
    """A Ray cluster cannot be reached, failed, or its nodes do not fit the run."""


class MissingExtraError(CxredgeError):
    """An optional part of cxredge is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'cxredge[{extra}]'")
        self.extra = extra
