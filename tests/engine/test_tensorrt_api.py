"""Every call that we make to TensorRT exists in 10.3, 10.16, 11.4 and TensorRT for RTX 1.7, or is guarded."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import cxredge
from cxredge.engine.flavour import NEEDED, Flavour, load_flavour
from cxredge.engine.progress import BuildProgress, monitor_for

from .api_uses import MODULE, VERSIONS, unresolved, uses

PACKAGE = Path(cxredge.__file__).parent
ALL = sorted(PACKAGE.rglob("*.py"))
OTHERS = {"cuda", "node"}
SOURCES = [path for path in ALL if path.parent.name not in OTHERS]
"""The modules of CUDA hold contexts, those of the node engines of another kind; they never see TensorRT, see below."""
CALLING = [path for path in SOURCES if uses(path.read_text(encoding="utf-8"))]
NOT_TENSORRT: frozenset[str] = frozenset()
"""Names of members that other objects of ours have too."""


def test_the_lists_are_those_of_the_versions_that_we_support() -> None:
    assert set(VERSIONS) == {"10.3", "10.16", "11.4", "rtx-1.7"}
    assert all("build_serialized_network" in classes["Builder"] for classes in VERSIONS.values())


def test_the_modules_of_cuda_and_of_the_node_never_see_tensorrt() -> None:
    for path in set(ALL) - set(SOURCES):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"trt", "flavour", "tensorrt", "tensorrt_rtx"}, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_use_exists_in_every_version_or_is_guarded(path: Path) -> None:
    found = uses(path.read_text(encoding="utf-8"))
    wrong = {str(use): sorted(use.missing()) for use in found if use.missing()}
    assert wrong == {}


def test_the_builder_s_uses_are_found() -> None:
    assert "builder" in {path.stem for path in CALLING}
    (builder,) = [path for path in CALLING if path.stem == "builder"]
    found = {f"{use.holder}.{use.member}" for use in uses(builder.read_text(encoding="utf-8"))}
    assert {
        "Builder.create_builder_config",
        "BuilderFlag.TF32",
        "IBuilderConfig.set_compute_capability",
        "IBuilderConfig.set_timing_cache",
        "INetworkDefinition.get_input",
        "IOptimizationProfile.set_shape",
        "ITensor.shape",
        "ITimingCache.serialize",
    } <= found


@pytest.mark.parametrize("path", CALLING, ids=lambda path: path.stem)
def test_no_use_goes_unseen(path: Path) -> None:
    assert unresolved(path.read_text(encoding="utf-8"), NOT_TENSORRT) == []


@pytest.mark.parametrize("name", NEEDED)
def test_what_shows_that_a_module_is_tensorrt_is_in_every_version(name: str) -> None:
    assert all(name in classes[MODULE] for classes in VERSIONS.values())


def test_the_progress_monitor_has_the_methods_of_every_version() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    rtx: Flavour = load_flavour("tensorrt_rtx")
    monitor = type(monitor_for(rtx.module, BuildProgress()))
    own = {name for name in vars(monitor) if not name.startswith("_")}
    assert all(own == set(classes["IProgressMonitor"]) for classes in VERSIONS.values())


INVENTED = [
    ("trt.Bilder(log)", "trt.Bilder"),
    ("trt.BuilderFlag.FP23", "BuilderFlag.FP23"),
    ("builder = trt.Builder(log)\nbuilder.build_quickly()", "Builder.build_quickly"),
    ("config = trt.Builder(log).create_builder_config()\nconfig.fastest = True", "IBuilderConfig.fastest"),
    ("flavour.module.Abacus", "trt.Abacus"),
    ("getattr(trt, 'Abacus')", "trt.Abacus"),
    ("def f(network: Any): return network.get_output(0).colour", "ITensor.colour"),
    ("class R:\n  def run(self): self._context.enqueue_v9(1)", "IExecutionContext.enqueue_v9"),
]
ABSENT_IN_SOME = [
    ("trt.BuilderFlag.FP16", {"11.4", "rtx-1.7"}),
    ("def f(config: Any): config.int8_calibrator = None", {"11.4", "rtx-1.7"}),
    ("def f(config: Any): config.set_compute_capability(1, 0)", {"10.3", "10.16", "11.4"}),
    ("trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY", {"10.3"}),
    ("def f(engine: Any): engine.get_engine_stat(1)", {"10.3"}),
]


def with_module(source: str) -> str:
    return "def outer(trt: Any, flavour):\n" + "\n".join(f"  {line}" for line in source.splitlines())


@pytest.mark.parametrize(("source", "name"), INVENTED)
def test_an_invented_name_is_found(source: str, name: str) -> None:
    text = source if source.startswith(("def", "class")) else with_module(source)
    wrong = [use for use in uses(text) if use.missing()]
    assert [f"{use.holder}.{use.member}" for use in wrong] == [name]
    assert wrong[0].missing() == set(VERSIONS)


@pytest.mark.parametrize(("source", "lacking"), ABSENT_IN_SOME)
def test_what_some_versions_lack_is_found(source: str, lacking: set[str]) -> None:
    text = source if source.startswith("def") else with_module(source)
    (missing,) = [use.missing() for use in uses(text) if use.missing()]
    assert missing == lacking


def test_a_guard_covers_what_comes_with_it() -> None:
    guarded = (
        "def f(config: Any):\n if hasattr(config, 'set_compute_capability'):\n  config.set_compute_capability(1, 0)"
    )
    together = guarded.replace("config.set_compute_capability(1, 0)", "config.num_compute_capabilities = 1")
    assert [use for use in uses(guarded) + uses(together) if use.missing()] == []


@pytest.mark.parametrize("guard", ["max_threads", "int8_calibrator", "abacus"])
def test_a_guard_on_something_else_covers_nothing(guard: str) -> None:
    source = f"def f(config: Any):\n if hasattr(config, '{guard}'):\n  config.set_compute_capability(1, 0)"
    assert [use.missing() for use in uses(source) if use.missing()]


def test_a_guard_that_comes_too_late_covers_nothing() -> None:
    source = "def f(config: Any):\n config.set_compute_capability(1, 0)\n hasattr(config, 'set_compute_capability')"
    assert [use.missing() for use in uses(source) if use.missing()]


def test_a_use_of_something_unknown_is_reported() -> None:
    assert unresolved("def f(thing):\n thing.execute_async_v3(1)") == ["line 2: thing.execute_async_v3"]
    assert unresolved("def f(context: Any):\n context.execute_async_v3(1)") == []


def test_names_that_hold_something_else_are_left_alone() -> None:
    assert uses("def f(config: TrainingConfig): return config.name") == []
    assert uses("def f(): \n config = load()\n return config.name") == []
