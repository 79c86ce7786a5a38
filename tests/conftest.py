"""What every test may use: the folder of real radiographs, where there is one."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets: ``$CXREDGE_DATA``, or ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("CXREDGE_DATA", DEFAULT_DATA))
    if not (folder / "jsrt" / "manifest.csv").is_file():
        pytest.skip(f"no real radiographs in {folder} (set CXREDGE_DATA)")
    return folder


@pytest.fixture(scope="session")
def polygraphy() -> None:
    """Polygraphy, which decides for a flavour of TensorRT once in a process: for the one that the tests build with."""
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if find_spec("tensorrt_rtx") else "0"
    pytest.importorskip("polygraphy.logger", reason="Polygraphy is not installed: pip install 'cxredge[tensorrt]'")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless they are asked for."""
    if "slow" not in config.option.markexpr:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with -m slow"))
