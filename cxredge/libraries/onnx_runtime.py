"""ONNX Runtime, imported so that it reports nothing to anyone.

Its wheels send usage events to Microsoft: on Windows through the system's tracing, elsewhere from 1.32 on over the
network, with an identifier of the device that they keep in the user's cache folder. It decides when it is
first imported in a process, so that whatever of cxredge uses it imports it from here, or after this module. A host
application that imported it before has decided for itself.
"""

from __future__ import annotations

import os
import sys

SWITCH = "ORT_DISABLE_TELEMETRY"
"""Environment variable that ONNX Runtime reads at its import, outside Windows."""


def import_silently() -> None:
    """Import ONNX Runtime with its telemetry off; the environment is afterwards what it was."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        import onnxruntime
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
    onnxruntime.disable_telemetry_events()


if "onnxruntime" not in sys.modules:
    import_silently()

import onnxruntime  # noqa: E402 (only now)

__all__ = ["onnxruntime"]
