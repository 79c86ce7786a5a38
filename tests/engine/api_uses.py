"""Finds the uses of TensorRT's Python API in source code, and which of them a version lacks.

The lists in ``tensorrt_api/`` name every class and member of four versions. What a variable holds is inferred
from how it was made (``trt.Builder(...)``, ``builder.create_builder_config()``), from ``flavour.module``, and
for parameters and attributes from their names in :data:`HOLDS`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "tensorrt_api"
MODULE = "trt"
HOLDS = {
    "trt": MODULE,
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "parser": "OnnxParser",
    "timing_cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
}
"""What a parameter annotated ``Any``, or an attribute of ``self``, of this name holds."""
RETURNS = {
    "create_builder_config": "IBuilderConfig",
    "create_network": "INetworkDefinition",
    "create_optimization_profile": "IOptimizationProfile",
    "get_input": "ITensor",
    "get_output": "ITensor",
    "create_timing_cache": "ITimingCache",
    "get_timing_cache": "ITimingCache",
    "build_serialized_network": "IHostMemory",
    "get_error": "ParserError",
    "deserialize_cuda_engine": "ICudaEngine",
    "create_execution_context": "IExecutionContext",
    "create_engine_inspector": "EngineInspector",
    "create_runtime_config": "IRuntimeConfig",
    "create_runtime_cache": "IRuntimeCache",
}
MADE_OF_MODULE = ("module", "_trt", "trt")
"""Attributes that hold the module itself."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def load_versions() -> dict[str, dict[str, frozenset[str]]]:
    """Classes and their members of each version; the members of :data:`MODULE` are the classes."""
    versions = {}
    for path in sorted(FOLDER.glob("*.json")):
        listed = json.loads(path.read_text())
        classes = {name: frozenset(members[1:]) for name, members in listed.items() if name != "version"}
        versions[path.stem] = {**classes, MODULE: frozenset(classes) | {"__version__"}}
    return versions


VERSIONS = load_versions()


def having(holder: str, member: str) -> frozenset[str]:
    """Versions in which ``holder`` has ``member``."""
    return frozenset(name for name, classes in VERSIONS.items() if member in classes.get(holder, ()))


@dataclass(frozen=True)
class Use:
    """One access to a member of a TensorRT object."""

    holder: str
    member: str
    line: int
    guards: frozenset[str]
    """Names that ``hasattr`` asked for before, in the same function."""

    def missing(self) -> frozenset[str]:
        """Versions that lack the member, unless a guard keeps them away."""
        there = having(self.holder, self.member)
        lacking = frozenset(VERSIONS) - there
        if any(guarded_versions(guard) <= there for guard in self.guards):
            return frozenset()
        return lacking

    def __str__(self) -> str:
        return f"line {self.line}: {self.holder}.{self.member}"


def guarded_versions(guard: str) -> frozenset[str]:
    """Versions in which anything has a member of that name; all of them where nothing has."""
    found = frozenset(
        name for name, classes in VERSIONS.items() if any(guard in members for members in classes.values())
    )
    return found or frozenset(VERSIONS)


def uses(source: str) -> list[Use]:
    """Every use of the API in ``source``."""
    tree = ast.parse(source)
    return [use for scope in scopes(tree) for use in Scope(scope).uses()]


def unresolved(source: str, known: frozenset[str] = frozenset()) -> list[str]:
    """Accesses by a name that only TensorRT has, to what is not known to be of TensorRT."""
    distinctive = {
        member
        for classes in VERSIONS.values()
        for members in classes.values()
        for member in members
        if "_" in member.strip("_") and member not in known
    }
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for scope in scopes(ast.parse(source))
        for node, holder in Scope(scope).accesses()
        if holder is None and node.attr in distinctive
    ]


def scopes(tree: ast.Module) -> Iterator[ast.Module | Function]:
    """The module and its functions; a nested function belongs to the one around it."""
    yield tree
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        if isinstance(node, Function):
            yield node
        else:
            pending += ast.iter_child_nodes(node)


class Scope:
    """What the names of one function hold."""

    def __init__(self, scope: ast.Module | Function) -> None:
        self.nodes = list(self.walk(scope))
        self.names: dict[str, str | None] = {}
        for node in self.nodes:
            if isinstance(node, ast.arg):
                annotation = "" if node.annotation is None else ast.unparse(node.annotation)
                self.names[node.arg] = HOLDS.get(node.arg) if annotation in ("Any", "") else None
        for node in sorted((n for n in self.nodes if hasattr(n, "lineno")), key=lambda n: n.lineno):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.names[node.targets[0].id] = self.instance(node.value)

    def walk(self, scope: ast.AST) -> Iterator[ast.AST]:
        """Nodes of this scope; those of functions are left to them where this is the module."""
        for node in ast.iter_child_nodes(scope):
            if isinstance(scope, ast.Module | ast.ClassDef) and isinstance(node, Function):
                continue
            yield node
            yield from self.walk(node)

    def instance(self, node: ast.expr) -> str | None:
        """Class of the object that an expression gives, :data:`MODULE` for the module, or ``None``."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.IfExp):
            return self.instance(node.body) or self.instance(node.orelse)
        if isinstance(node, ast.Attribute):
            if node.attr in MADE_OF_MODULE:
                return MODULE
            of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            return HOLDS.get(node.attr.lstrip("_")) if of_self else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if self.instance(node.func.value) == MODULE:
                return node.func.attr
            return RETURNS.get(node.func.attr)
        return None

    def holder(self, node: ast.expr) -> str | None:
        """Class whose member is taken from an expression: of its object, or itself where it names a class."""
        if isinstance(node, ast.Attribute) and self.instance(node.value) == MODULE:
            return node.attr
        return self.instance(node)

    def accesses(self) -> Iterator[tuple[ast.Attribute, str | None]]:
        """Attribute accesses, and ``getattr`` with a literal name, with the class that they are of."""
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                yield node, self.holder(node.value)
            elif is_call(node, "getattr") and isinstance(node.args[1], ast.Constant):
                access = ast.Attribute(node.args[0], node.args[1].value, ast.Load())
                yield ast.copy_location(access, node), self.holder(node.args[0])

    def uses(self) -> Iterator[Use]:
        """The uses of the API."""
        guards = [
            (node.lineno, node.args[1].value)
            for node in self.nodes
            if is_call(node, "hasattr") and isinstance(node.args[1], ast.Constant)
        ]
        for node, holder in self.accesses():
            if holder is not None:
                before = frozenset(name for line, name in guards if line <= node.lineno)
                yield Use(holder, node.attr, node.lineno, before)


def is_call(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name and len(node.args) > 1
    )
