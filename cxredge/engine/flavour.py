"""Which TensorRT is installed: ``tensorrt`` (10.3 and later) or ``tensorrt_rtx``; imported only when it is used."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from cxredge.engine.record import FLAVOURS, FlavourName
from cxredge.errors import EngineError

FlavourChoice: TypeAlias = Literal["auto", "tensorrt", "tensorrt-rtx"]
CHOICES: tuple[FlavourChoice, ...] = ("auto", "tensorrt", "tensorrt-rtx")
OLDEST = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 0)}
POLYGRAPHY_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
NEEDED = ("Builder", "OnnxParser", "Runtime", "IProgressMonitor")
"""Names whose absence shows that a module is not TensorRT itself."""
INSTALL = {
    "tensorrt": "on a Jetson it comes with JetPack 6.1 and later, elsewhere see docs.nvidia.com/deeplearning/tensorrt",
    "tensorrt_rtx": "pip install 'cxredge[rtx]'",
}


@dataclass(frozen=True)
class Flavour:
    """An installed TensorRT.

    Attributes:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        version: all its numbers.
        module: the imported module; importing it creates no TensorRT object.
    """

    name: FlavourName
    version: str
    module: Any

    @property
    def cross_builds(self) -> bool:
        """Whether it can build for a GPU that is not there."""
        return hasattr(self.module, "ComputeCapability")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that it can build for without the GPU, as ``"8.9"``, ascending."""
        if not hasattr(self.module, "ComputeCapability"):
            return ()
        numbers = [re.fullmatch(r"SM(\d+)(\d)", name) for name in dir(self.module.ComputeCapability)]
        found = sorted((int(match[1]), int(match[2])) for match in numbers if match)
        return tuple(f"{major}.{minor}" for major, minor in found)


def find_flavour(choice: FlavourChoice = "auto", *, cross: bool = False) -> Flavour:
    """The TensorRT to use.

    Args:
        choice: ``auto`` takes ``tensorrt`` where both are installed.
        cross: for a GPU that is not there, which ``tensorrt`` cannot; ``auto`` takes ``tensorrt_rtx`` then.

    Raises:
        EngineError: not installed, too old, or only the placeholder of the public package index.
    """
    if choice != "auto":
        return load_flavour("tensorrt_rtx" if choice == "tensorrt-rtx" else choice)
    installed = [name for name in FLAVOURS if find_spec(name) is not None]
    if not installed:
        raise EngineError("TensorRT is not installed: " + "; or ".join(f"{name}: {INSTALL[name]}" for name in FLAVOURS))
    if cross and "tensorrt_rtx" in installed:
        return load_flavour("tensorrt_rtx")
    first_problem = None
    for name in installed:
        try:
            return load_flavour(name)
        except EngineError as error:
            first_problem = first_problem or error
    assert first_problem is not None
    raise first_problem


def load_flavour(name: FlavourName) -> Flavour:
    """Import a TensorRT and check that it can be used.

    Raises:
        EngineError: not installed, too old, or not TensorRT itself.
    """
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise EngineError(f"{name} is not installed: {INSTALL[name]}") from error
        raise EngineError(placeholder(name, f"it lacks {error.name}")) from error
    except (ImportError, OSError) as error:  # of a shared library
        raise EngineError(f"{name} cannot be loaded: {error}") from error
    version = str(getattr(module, "__version__", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers and numbers < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise EngineError(
            f"{name} {version} is too old, {oldest} is the oldest that cxredge builds with"
            + ("; JetPack 5 and 6.0 have 8.x: update to JetPack 6.1 or later" if name == "tensorrt" else "")
        )
    missing = [one for one in NEEDED if not hasattr(module, one)]
    if missing or not numbers:
        raise EngineError(placeholder(name, f"it has no {missing[0] if missing else '__version__'}"))
    return Flavour(name, version, module)


def placeholder(name: FlavourName, finding: str) -> str:
    """The message about a package that only carries TensorRT's name."""
    return (
        f"the module {name} is not TensorRT itself but a placeholder, like the one of the public package index "
        f"({finding}); {INSTALL[name]}"
    )


def choose_for_polygraphy(flavour: Flavour) -> None:
    """Make Polygraphy use ``flavour``; it decides once in a process, when it is first imported.

    Raises:
        EngineError: it decided for the other one already.
    """
    os.environ[POLYGRAPHY_SWITCH] = "1" if flavour.name == "tensorrt_rtx" else "0"
    config = sys.modules.get("polygraphy.config")
    if config is not None and getattr(config, "USE_TENSORRT_RTX", False) != (flavour.name == "tensorrt_rtx"):
        raise EngineError(
            f"Polygraphy was imported for the other TensorRT in this process, or is older than 0.50.3; set "
            f"{POLYGRAPHY_SWITCH}={os.environ[POLYGRAPHY_SWITCH]} before Python starts, or update it"
        )
