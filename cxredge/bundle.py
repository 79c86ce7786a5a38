"""The model that comes inside the wheel."""

from __future__ import annotations

from pathlib import Path

from cxredge.errors import ModelError

BUNDLED_MODEL = "cxredge-edge.onnx"


def bundled_model() -> Path:
    """Path of the bundled model; ``MODEL_CARD.md`` beside it says what it was trained on and its terms.

    Raises:
        ModelError: this installation lacks it.
    """
    path = Path(__file__).parent / "models" / BUNDLED_MODEL
    if not path.is_file():
        raise ModelError(f"{path}: the bundled model is missing; reinstall cxredge or name a model")
    return path
