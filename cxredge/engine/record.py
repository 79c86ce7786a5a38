"""The sidecar of an engine: ``NAME.json`` beside ``NAME.plan``, which says what the plan is and where it is from.

It is checked field by field, so that whatever lies in the cache can be read without harm.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cxredge.contract import PRECISIONS, Contract, parse_contract
from cxredge.errors import EngineError, ModelError
from cxredge.limits import parse_json

FlavourName: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[FlavourName, ...] = ("tensorrt", "tensorrt_rtx")
FORMAT = 1
SIDECAR_SUFFIX = ".json"
LARGEST_SIDECAR = 2 << 20
"""Bytes beyond which a sidecar is refused unread; it holds a contract of at most 1 MiB."""
LARGEST_PLAN = 8 << 30
LARGEST_BATCH = 1024
LONGEST_TEXT = 256
"""Characters of a version or of a name."""
SHA256 = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"\d+(\.\d+)+[\w.+-]*")
COMPUTE_CAPABILITY = re.compile(r"\d{1,2}\.\d")
BLOCK = 1 << 20

Batches: TypeAlias = tuple[int, int, int]
"""Smallest, best and largest batch of an optimisation profile."""


@dataclass(frozen=True)
class EngineRecord:
    """What is known about a plan.

    Attributes:
        model_sha256: of the model file that was named to ``build-engine``; the precision is reached from there.
        plan_sha256: of the plan.
        plan_bytes: size of the plan.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        version: of that library, all its numbers.
        compute_capability: that it was built for, as ``"8.9"``.
        batches: smallest, best and largest batch.
        precision: ``fp32``, ``fp16`` or ``int8``.
        contract: of the typed model that was compiled, as a JSON object.
        gpu_name: on which it was built; ``None`` for a cross-build, which was made without a GPU.
        driver: with which it was built.
        options: other build options.
        build_seconds: that the build took.
        created: time of the build, ISO 8601.
        parity: comparison with ONNX Runtime on the device; ``None`` where it has not been run.
        format: version of this sidecar.
    """

    model_sha256: str
    plan_sha256: str
    plan_bytes: int
    flavour: FlavourName
    version: str
    compute_capability: str
    batches: Batches
    precision: str
    contract: dict[str, Any]
    gpu_name: str | None = None
    driver: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    build_seconds: float = 0.0
    created: str = "1970-01-01T00:00:00+00:00"
    parity: dict[str, Any] | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        require_choice("format", self.format, (FORMAT,))
        require_choice("flavour", self.flavour, FLAVOURS)
        require_choice("precision", self.precision, PRECISIONS)
        for name, pattern in (
            ("model_sha256", SHA256),
            ("plan_sha256", SHA256),
            ("version", VERSION),
            ("compute_capability", COMPUTE_CAPABILITY),
        ):
            require_text(name, getattr(self, name), pattern)
        for name in ("gpu_name", "driver"):
            if getattr(self, name) is not None:
                require_text(name, getattr(self, name))
        require_integer("plan_bytes", self.plan_bytes, LARGEST_PLAN)
        require_batches(self.batches)
        require_time(self.created)
        if type(self.build_seconds) not in (int, float) or not 0 <= self.build_seconds < math.inf:
            raise EngineError(f"build_seconds is {self.build_seconds!r}, not a time")
        if not isinstance(self.options, dict):
            raise EngineError("options must be an object")
        if self.parity is not None and not isinstance(self.parity, dict):
            raise EngineError("parity must be an object or null")
        self.read_contract()

    def read_contract(self) -> Contract:
        """The contract of the model that was compiled.

        Raises:
            EngineError: it is not valid.
        """
        if not isinstance(self.contract, dict):
            raise EngineError("contract must be an object")
        try:
            return parse_contract(json.dumps(self.contract))
        except ModelError as error:
            raise EngineError(str(error)) from error

    def to_json(self) -> str:
        """The sidecar's text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"


def sidecar_path(plan: Path) -> Path:
    """Where the sidecar of ``plan`` is."""
    return plan.with_suffix(SIDECAR_SUFFIX)


def read_record(path: Path) -> EngineRecord:
    """Read and check a sidecar.

    Args:
        path: the ``.json`` file.

    Raises:
        EngineError: missing, too large, not JSON, an unknown or missing field, or a wrong value.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SIDECAR + 1)
    except FileNotFoundError as error:
        raise EngineError(
            f"{path}: there is no such file, and without its sidecar nothing is known about a plan; "
            "build the engine with 'cxredge build-engine'"
        ) from error
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return parse_record(content)
    except EngineError as error:
        raise EngineError(f"{path}: is not the sidecar of an engine: {error}; build the engine again") from error


def parse_record(content: bytes) -> EngineRecord:
    """Read a sidecar's text.

    Raises:
        EngineError: it is not valid.
    """
    if len(content) > LARGEST_SIDECAR:
        raise EngineError(f"it is larger than {LARGEST_SIDECAR} bytes")
    try:
        record = parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise EngineError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise EngineError("not an object")
    known = {one.name for one in fields(EngineRecord)}
    if unknown := set(record) - known:
        raise EngineError(f"unknown field {sorted(unknown)[0]!r}; it was made by a newer cxredge")
    if missing := known - set(record):
        raise EngineError(f"field {sorted(missing)[0]!r} is missing")
    if isinstance(record["batches"], list):
        record["batches"] = tuple(record["batches"])
    return EngineRecord(**record)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def require_choice(name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Raise :class:`EngineError` where ``value`` is none of ``known``."""
    if not any(type(value) is type(one) and value == one for one in known):
        raise EngineError(f"{name} is {value!r}, this cxredge knows {', '.join(map(str, known))}")


def require_text(name: str, value: Any, pattern: re.Pattern[str] | None = None) -> None:
    """Raise :class:`EngineError` where ``value`` is not text, too long, or not of the pattern."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        raise EngineError(f"{name} must be text of at most {LONGEST_TEXT} characters")
    if pattern is not None and not pattern.fullmatch(value):
        raise EngineError(f"{name} is {value!r}")


def require_integer(name: str, value: Any, largest: int) -> None:
    """Raise :class:`EngineError` where ``value`` is not a whole number from 1 to ``largest``."""
    if type(value) is not int or not 1 <= value <= largest:
        raise EngineError(f"{name} is {value!r}, not a whole number from 1 to {largest}")


def require_batches(batches: Any) -> None:
    """Raise :class:`EngineError` where ``batches`` is not a smallest, best and largest batch."""
    if not isinstance(batches, tuple) or len(batches) != 3:
        raise EngineError(f"batches is {batches!r}, not a smallest, best and largest batch")
    for batch in batches:
        require_integer("batches", batch, LARGEST_BATCH)
    if list(batches) != sorted(batches):
        raise EngineError(f"batches is {batches!r}, which does not grow from smallest to largest")


def require_time(created: Any) -> None:
    """Raise :class:`EngineError` where ``created`` is not a time in ISO 8601."""
    require_text("created", created)
    try:
        datetime.fromisoformat(created)
    except ValueError as error:
        raise EngineError(f"created is {created!r}, not a time") from error
