"""The contract that every model file carries: what goes in, what comes out, where it is from.

It is JSON in the ONNX file's ``metadata_props["cxredge"]``, so that one file is the whole model. The
device reads it through its backend and refuses a file without a valid one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cxredge.errors import ModelError
from cxredge.limits import parse_json
from cxredge.quality.reference import Reference, read_reference

CONTRACT_KEY = "cxredge"
FORMAT = 1
LONGEST_CONTRACT = 1 << 20
"""Characters of JSON beyond which a contract is refused unread."""

NORMALISATION = "min-max per image to [-1, 1]"
RESIZE = "area when shrinking, bilinear when enlarging, aspect ratio not kept"
POLARITY = "MONOCHROME2"
OUTPUT = "one lung logit a pixel; mask = logit > 0"
INTENDED_USE = (
    "Research. Lung fields of frontal chest radiographs, as a step in a pipeline that a person oversees. "
    "Not a medical device, not for diagnosis."
)

CODES = ("a_seg", "a_self")
PRECISIONS = ("fp32", "fp16", "int8")
REQUIRED = {"name", "width", "input_size", "code", "licence"}
OPTIONAL = {"input_statistics", "flag_thresholds", "calibration", "processing"}


@dataclass(frozen=True)
class Contract:
    """What a model file promises.

    Attributes:
        name: of the model.
        width: base channels of the generator.
        input_size: side S of the input ``(N, 1, S, S)`` and the output ``(N, 1, S, S)`` in pixels.
        code: AdaIN code that is folded in, ``a_seg`` or ``a_self``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        folds: exact transformations that were applied.
        normalisation: rule for the values of the input; one is known.
        resize: rule for the size of the input; one is known.
        polarity: which value is shown white in the input.
        output: meaning of the output; one is known.
        input_statistics: what is usual of radiographs and their masks, see :mod:`cxredge.quality.reference`.
        flag_thresholds: of the quality flags, and what they were derived from. Without both there are the basic
            flags only.
        provenance: configuration and data hashes, commit, iterations.
        measured: figures by data set, as ``cxredge evaluate`` gave them.
        parity: comparison with the network that the file was made from.
        calibration: record of the INT8 calibration.
        processing: of a model with its processing inside: what goes in and comes out instead of the network's
            input and output, and how near that is to cxredge's own. ``None``: a bare network.
        intended_use: what the model is for.
        licence: terms of the weights.
        format: version of this contract.
    """

    name: str
    width: int
    input_size: int
    code: str
    licence: str
    precision: str = "fp32"
    folds: tuple[str, ...] = ()
    normalisation: str = NORMALISATION
    resize: str = RESIZE
    polarity: str = POLARITY
    output: str = OUTPUT
    input_statistics: dict[str, Any] | None = None
    flag_thresholds: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    processing: dict[str, Any] | None = None
    intended_use: str = INTENDED_USE
    format: int = FORMAT

    def __post_init__(self) -> None:
        for name, known in (
            ("format", (FORMAT,)),
            ("code", CODES),
            ("precision", PRECISIONS),
            ("normalisation", (NORMALISATION,)),
            ("resize", (RESIZE,)),
            ("polarity", (POLARITY,)),
            ("output", (OUTPUT,)),
        ):
            value = getattr(self, name)
            if not any(type(value) is type(one) and value == one for one in known):
                raise ModelError(f"contract: {name} is {value!r}, this cxredge knows {', '.join(map(str, known))}")
        for name in ("width", "input_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ModelError(f"contract: {name} is {value!r}, not a size")
        for name in ("name", "licence", "intended_use"):
            if not isinstance(getattr(self, name), str):
                raise ModelError(f"contract: {name} must be text")
        for name in ("provenance", "measured", "parity", *sorted(OPTIONAL)):
            value = getattr(self, name)
            if not isinstance(value, dict) and not (value is None and name in OPTIONAL):
                raise ModelError(f"contract: {name} must be an object")
        if not isinstance(self.folds, tuple) or not all(isinstance(fold, str) for fold in self.folds):
            raise ModelError("contract: folds must be a list of names")
        read_reference(self.input_statistics, self.flag_thresholds)

    @property
    def reference(self) -> Reference | None:
        """Statistics and thresholds of the quality flags, or ``None`` where the model has none; read anew each time."""
        return read_reference(self.input_statistics, self.flag_thresholds)

    def to_json(self) -> str:
        """The contract as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)


def parse_contract(text: str | None, *, with_processing: bool = False) -> Contract:
    """Read and check a contract.

    Args:
        text: the JSON.
        with_processing: whether it may be that of a model with its processing inside, which no backend takes.

    Raises:
        ModelError: absent, too long or deep, not JSON, an unknown or missing field, or an unknown rule.
    """
    if text is None:
        raise ModelError("carries no cxredge contract; make it with 'cxredge export'")
    if len(text) > LONGEST_CONTRACT:
        raise ModelError(f"contract: {len(text)} characters is too long")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ModelError(f"contract: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError("contract: is not an object")
    unknown = set(content) - {f.name for f in fields(Contract)}
    if unknown:
        raise ModelError(f"contract: unknown field {sorted(unknown)[0]!r}; it was made by a newer cxredge")
    missing = REQUIRED - set(content)
    if missing:
        raise ModelError(f"contract: field {sorted(missing)[0]!r} is missing")
    if isinstance(content.get("folds"), list):
        content["folds"] = tuple(content["folds"])
    contract = Contract(**content)
    if contract.processing is not None and not with_processing:
        raise ModelError("has its processing inside, for other programs; name the model that it was made from")
    return contract
