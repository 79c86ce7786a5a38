"""OpenVINO (extra ``openvino``), imported so that it reports nothing to anyone.

Its import sends an event to Google Analytics through the package ``openvino_telemetry``, and keeps an identifier in
the user's home, unless the user has opted out there. Where that package cannot be imported OpenVINO goes on
without it. A host application that imported OpenVINO before has decided for itself.
"""

from __future__ import annotations

import sys
from typing import Any

REPORTER = "openvino_telemetry"


def import_silently() -> None:
    """Import OpenVINO while its reporter cannot be imported; whoever wants that later still can.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    modules: dict[str, Any] = sys.modules
    before = modules.get(REPORTER)
    modules[REPORTER] = None
    try:
        import openvino  # noqa: F401 (for its effect)
    finally:
        if before is None:
            del modules[REPORTER]
        else:
            modules[REPORTER] = before


if "openvino" not in sys.modules:
    import_silently()

import openvino  # noqa: E402 (only now)

__all__ = ["openvino"]
