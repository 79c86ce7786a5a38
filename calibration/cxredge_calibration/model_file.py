"""A model as one ONNX file with its contract inside: read and written here, for calibration and export alike.

The device reads the contract through its backends and never imports onnx; everything that changes a
graph goes through this module.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from cxredge.contract import CONTRACT_KEY, Contract, parse_contract
from cxredge.errors import ModelError
from cxredge.limits import LARGEST_MODEL, LimitError, read_bytes
from cxredge.runs.results import write_atomically


def read_model(path: Path, *, with_processing: bool = False) -> tuple[onnx.ModelProto, Contract]:
    """Read a model and its contract; see :func:`cxredge.contract.parse_contract`.

    Raises:
        ModelError: missing, too large, in more than one file, not an ONNX model, or without a valid contract.
    """
    try:
        model = onnx.load_model_from_string(read_bytes(path, LARGEST_MODEL))
        require_one_file(model)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such model file") from error
    except LimitError as error:
        raise ModelError(f"{path}: {error}") from error
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: is not an ONNX model that can be loaded: {error}") from error
    try:
        return model, read_contract(model, with_processing=with_processing)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def require_one_file(model: onnx.ModelProto) -> None:
    """Raise :class:`LimitError` where weights lie in another file, which a model could name at will."""
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise LimitError("keeps weights in another file; a model of cxredge is one file")


def read_contract(model: onnx.ModelProto, *, with_processing: bool = False) -> Contract:
    """The contract inside ``model``; see :func:`cxredge.contract.parse_contract`.

    Raises:
        ModelError: it carries no valid one.
    """
    texts = [prop.value for prop in model.metadata_props if prop.key == CONTRACT_KEY]
    return parse_contract(texts[0] if texts else None, with_processing=with_processing)


def add_contract(model: onnx.ModelProto, contract: Contract) -> None:
    """Put ``contract`` into ``model``, in place of any that it carries."""
    kept = [prop for prop in model.metadata_props if prop.key != CONTRACT_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = CONTRACT_KEY, contract.to_json()


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` as one file, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, model.SerializeToString())
