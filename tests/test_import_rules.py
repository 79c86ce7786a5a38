"""Who may import whom (design, "The house"): read from the sources, without importing any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "cxredge": ROOT / "cxredge",
    "cxredge_train": ROOT / "train" / "cxredge_train",
    "cxredge_export": ROOT / "export" / "cxredge_export",
    "cxredge_calibration": ROOT / "calibration" / "cxredge_calibration",
}
OURS = frozenset(PACKAGES)
READS_CHECKPOINTS = {"conversion.py", "deployed.py", "export.py", "folding.py", "reference.py", "unfolding.py"}
"""Modules of ``cxredge_export`` that may import torch and ``cxredge_train``."""


def sources(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def nodes(tree: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    """Nodes that run at import, or all of them; what stands under ``if TYPE_CHECKING`` never runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from nodes(other, everywhere)
            continue
        yield node
        if everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from nodes(node, everywhere)


def imports(path: Path, everywhere: bool) -> set[str]:
    """Top-level names of the packages that a source file imports."""
    found = set()
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add((node.module or "").split(".")[0])
    return found


def offenders(
    package: str, forbidden: set[str], *, everywhere: bool, allowed: frozenset[str] = frozenset()
) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"
        for path in sources(package)
        if path.name not in allowed and (wrong := imports(path, everywhere) & forbidden)
    ]


@pytest.mark.parametrize("package", sorted(OURS))
def test_every_package_has_sources(package: str) -> None:
    assert sources(package)


def test_the_device_never_imports_torch_or_onnx() -> None:
    assert offenders("cxredge", {"torch", "onnx", "onnxscript", "onnxsim", "kornia"}, everywhere=True) == []


@pytest.mark.parametrize("package", sorted(OURS))
def test_opencv_is_imported_in_one_place(package: str) -> None:
    assert offenders(package, {"cv2"}, everywhere=True, allowed=frozenset({"open_cv.py"})) == []


def test_the_device_imports_none_of_the_others_at_module_level() -> None:
    assert offenders("cxredge", set(OURS - {"cxredge"}), everywhere=False) == []


def test_only_the_command_line_and_two_named_modules_of_the_device_call_the_others_at_all() -> None:
    wrong = offenders("cxredge", set(OURS - {"cxredge"}), everywhere=True)
    outside = {line.partition(" ")[0] for line in wrong if not line.startswith("cxredge/cli/")}
    assert outside == {"cxredge/backends/__init__.py", "cxredge/engine/typed_model.py"}


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of what a source file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_but_the_start_of_the_program_imports_the_command_line() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in OURS
        for path in sources(package)
        if any(f"{name}.".startswith("cxredge.cli.") for name in imported_modules(path))
    }
    assert {name for name in found if not name.startswith("cxredge/cli/")} == {"cxredge/__main__.py"}


def test_modules_that_import_cxredge_load_stay_light() -> None:
    for name in ("__init__.py", "errors.py", "cli/__init__.py"):
        heavy = {"numpy", "onnxruntime", "pydicom", "cv2", "PIL", "rich"}
        assert not imports(PACKAGES["cxredge"] / name, everywhere=False) & heavy


@pytest.mark.parametrize("package", ["cxredge_train", "cxredge_calibration"])
def test_training_and_calibration_import_only_the_device(package: str) -> None:
    assert offenders(package, set(OURS - {"cxredge", package}), everywhere=True) == []


def test_calibration_works_without_torch() -> None:
    assert offenders("cxredge_calibration", {"torch", "kornia", "safetensors"}, everywhere=True) == []


def test_only_what_reads_checkpoints_imports_torch_in_the_export() -> None:
    forbidden = {"torch", "cxredge_train"}
    assert offenders("cxredge_export", forbidden, everywhere=True, allowed=frozenset(READS_CHECKPOINTS)) == []


def test_the_list_of_modules_that_read_checkpoints_is_not_longer_than_needed() -> None:
    needed = {p.name for p in sources("cxredge_export") if imports(p, everywhere=True) & {"torch", "cxredge_train"}}
    assert needed == READS_CHECKPOINTS
