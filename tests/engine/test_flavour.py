"""Which TensorRT is used, and why one is refused, with made modules in place of the libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cxredge.engine import flavour
from cxredge.engine.flavour import NEEDED, Flavour, choose_for_polygraphy, find_flavour
from cxredge.errors import EngineError

Install = Callable[..., ModuleType]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a module in place of a TensorRT; those that are not put are not installed."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)

    def put(name: str, version: str | None, **members: Any) -> ModuleType:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        if version is not None:
            members["__version__"] = version
        for member, value in {**dict.fromkeys(NEEDED, object), **members}.items():
            setattr(module, member, value)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    real = flavour.find_spec
    monkeypatch.setattr(flavour, "find_spec", lambda name: real(name) if sys.modules.get(name) else None)
    return put


def test_without_any_the_message_names_both(install: Install) -> None:
    with pytest.raises(
        EngineError, match=r"not installed: tensorrt: on a Jetson .*tensorrt_rtx: pip install 'cxredge\[r"
    ):
        find_flavour()


@pytest.mark.parametrize(("choice", "name"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_one_that_is_asked_for_and_absent_is_named(choice: Any, name: str, install: Install) -> None:
    with pytest.raises(EngineError, match=f"{name} is not installed"):
        find_flavour(choice)


@pytest.mark.parametrize("version", ["8.6.2", "8.5.2.2", "10.2.0"])
def test_an_old_tensorrt_is_refused_with_the_way_out(version: str, install: Install) -> None:
    install("tensorrt", version)
    with pytest.raises(EngineError, match=rf"tensorrt {version} is too old, 10\.3 is the oldest.*JetPack 6\.1"):
        find_flavour()


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.12"])
def test_tensorrt_from_10_3_on_is_taken(version: str, install: Install) -> None:
    install("tensorrt", version)
    assert (find_flavour().name, find_flavour().version) == ("tensorrt", version)


def test_the_placeholder_of_the_public_index_is_refused(install: Install) -> None:
    module = install("tensorrt", "10.16.1.11")
    del module.Builder
    with pytest.raises(EngineError, match=r"not TensorRT itself but a placeholder.*it has no Builder"):
        find_flavour("tensorrt")


def test_a_module_without_a_version_is_refused(install: Install) -> None:
    install("tensorrt", None)
    with pytest.raises(EngineError, match="it has no __version__"):
        find_flavour("tensorrt")


def test_a_package_that_lacks_its_bindings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tensorrt_bindings'", name="tensorrt_bindings")

    monkeypatch.setattr(flavour, "import_module", fail)
    with pytest.raises(EngineError, match="it lacks tensorrt_bindings"):
        find_flavour("tensorrt")


def test_a_shared_library_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(flavour, "import_module", fail)
    with pytest.raises(EngineError, match=r"tensorrt cannot be loaded: libnvinfer\.so\.10"):
        find_flavour("tensorrt")


def test_auto_takes_tensorrt_where_both_are_installed(install: Install) -> None:
    install("tensorrt", "10.3.0")
    install("tensorrt_rtx", "1.7.1.116")
    assert find_flavour().name == "tensorrt"


def test_auto_takes_rtx_for_a_gpu_that_is_not_there(install: Install) -> None:
    install("tensorrt", "10.3.0")
    install("tensorrt_rtx", "1.7.1.116")
    assert find_flavour(cross=True).name == "tensorrt_rtx"


def test_auto_takes_rtx_where_tensorrt_is_too_old(install: Install) -> None:
    install("tensorrt", "8.6.2")
    install("tensorrt_rtx", "1.7.1.116")
    assert find_flavour().name == "tensorrt_rtx"


def test_capabilities_are_those_that_the_library_lists() -> None:
    module = SimpleNamespace(ComputeCapability=SimpleNamespace(NONE=0, CURRENT=1, SM120=120, SM75=75, SM89=89))
    assert Flavour("tensorrt_rtx", "1.7.1.116", module).capabilities == ("7.5", "8.9", "12.0")
    assert not Flavour("tensorrt", "10.3.0", SimpleNamespace()).cross_builds


def test_polygraphy_is_told_the_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(flavour.POLYGRAPHY_SWITCH, raising=False)
    monkeypatch.delitem(sys.modules, "polygraphy.config", raising=False)
    rtx = Flavour("tensorrt_rtx", "1.7.1.116", SimpleNamespace())
    choose_for_polygraphy(rtx)
    assert os.environ[flavour.POLYGRAPHY_SWITCH] == "1"


def test_polygraphy_that_decided_for_the_other_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy.config", ModuleType("polygraphy.config"))
    monkeypatch.setattr(sys.modules["polygraphy.config"], "USE_TENSORRT_RTX", True, raising=False)
    with pytest.raises(
        EngineError, match=r"for the other TensorRT in this process.*set POLYGRAPHY_USE_TENSORRT_RTX=0 before"
    ):
        choose_for_polygraphy(Flavour("tensorrt", "10.3.0", SimpleNamespace()))
