"""The typed model that an engine is compiled from: precision lives in the ONNX file, and is put there here.

This is the one place outside the command line that calls calibration and export, each only when it is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cxredge import __version__
from cxredge.contract import Contract
from cxredge.engine.cache import cache_folder
from cxredge.engine.progress import Show
from cxredge.engine.record import file_sha256
from cxredge.errors import EngineError, InputError, MissingExtraError

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
Tell: TypeAlias = Callable[[str], None]
"""Takes a message for the user."""
HALF_REMAINDER = "fp16"
"""What the calibration record of an INT8 model says of its other layers once they are in FP16."""


@dataclass(frozen=True)
class TypedModel:
    """How the model file of an engine comes about.

    Attributes:
        precision: of the engine.
        make: makes the file and gives its path; the model itself where nothing has to be done.
        options: what the file depends on beside the model; part of the engine's key.
    """

    precision: Precision
    make: Callable[[], Path]
    options: dict[str, Any] = field(default_factory=dict)


def typed_model(
    model: Path, contract: Contract, precision: Precision | None, samples: tuple[Path, ...], show: Show, tell: Tell
) -> TypedModel:
    """Decide what has to be done to ``model`` so that its engine is of ``precision``.

    Args:
        model: the model file.
        contract: of the model.
        precision: wanted; ``None`` for INT8 where there are samples, FP16 for an FP32 model, else the model's own.
        samples: radiographs to calibrate INT8 on, as ``cxredge calibrate`` takes them.
        show: told how far a calibration is.
        tell: told where a calibration has left its report.

    Raises:
        EngineError: the model cannot become of that precision.
        InputError: there is no such sample.
    """
    has = contract.precision
    wanted: Precision = precision or ("int8" if samples else "fp16" if has == "fp32" else own_precision(contract))
    if samples and (wanted != "int8" or has != "fp32"):
        raise EngineError(f"{model}: only an FP32 model is calibrated, for INT8; leave --calibration-data away")
    if has not in ("fp32", wanted):
        raise EngineError(f"{model}: is {has}, no {wanted} engine can be made of it; name the FP32 model")
    if wanted == "int8" and has == "fp32":
        if not samples:
            raise EngineError(
                f"{model}: is fp32; for INT8 pass --calibration-data with chest radiographs of a training set, or name "
                "an INT8 model made by 'cxredge calibrate'"
            )
        return calibrated_model(model, samples, show, tell)
    if wanted == has and not half_typed_later(contract):
        return TypedModel(wanted, lambda: model)
    options = {"typed_by": __version__}
    return TypedModel(wanted, lambda: write_half(model, typed_path(model, wanted, options)), options)


def own_precision(contract: Contract) -> Precision:
    """The precision of the model, as one that an engine can have."""
    return "int8" if contract.precision == "int8" else "fp16"


def half_typed_later(contract: Contract) -> bool:
    """Whether the layers that an INT8 model leaves alone are still in FP32."""
    return contract.precision == "int8" and (contract.calibration or {}).get("remainder") != HALF_REMAINDER


def calibrated_model(model: Path, samples: tuple[Path, ...], show: Show, tell: Tell) -> TypedModel:
    """INT8 by calibration on the way; the result is kept, so that another build does not calibrate again."""
    options = {"typed_by": __version__, "calibration_sha256": samples_sha256(samples)}
    path = typed_path(model, "int8", options)

    def make() -> Path:
        if path.is_file():
            return path
        try:
            from cxredge_calibration.calibrate import calibrate_model
        except ModuleNotFoundError as error:
            raise MissingExtraError("calibrating", "calibration") from error
        quantised = path.with_suffix(".calibrated.onnx")
        calibrate_model(model, samples, quantised, progress=show)
        tell(f"calibrated: {quantised.with_suffix('')}.* holds the INT8 model, its ranges and the report")
        return write_half(quantised, path)

    return TypedModel("int8", make, options)


def write_half(model: Path, path: Path) -> Path:
    """Type ``model`` in FP16 and write it to ``path``."""
    try:
        from cxredge_calibration.model_file import read_model, write_model
        from cxredge_export.precision import to_fp16
    except ModuleNotFoundError as error:
        raise MissingExtraError("typing a model in FP16", "calibration") from error
    write_model(to_fp16(read_model(model)[0]), path)
    return path


def typed_path(model: Path, precision: Precision, options: dict[str, Any]) -> Path:
    """Where the typed model is kept, by the content of everything that it depends on."""
    key = json.dumps([file_sha256(model), precision, options], sort_keys=True)
    return cache_folder() / "typed" / f"{hashlib.sha256(key.encode()).hexdigest()}.onnx"


def samples_sha256(samples: tuple[Path, ...]) -> str:
    """SHA-256 over every file of ``samples``, by name and content.

    Raises:
        InputError: one is not there or cannot be read.
    """
    digest = hashlib.sha256()
    for name, path in sample_files(samples):
        try:
            digest.update(f"{name}\0{file_sha256(path)}\n".encode())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", path) from error
    return digest.hexdigest()


def sample_files(samples: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """The files of ``samples``, each with its name below the folder that was named.

    Raises:
        InputError: one of ``samples`` is not there.
    """
    for sample in samples:
        if not sample.exists():
            raise InputError("there is no such file or folder to calibrate on", sample)
        if sample.is_file():
            yield sample.name, sample
        for path in sorted(sample.rglob("*")):
            if path.is_file():
                yield path.relative_to(sample).as_posix(), path
