"""Training configurations on disk: TOML files, read into :class:`TrainingConfig` with every name and type checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cxredge.errors import ConfigError
from cxredge.limits import LARGEST_CONFIG, TOO_DEEP, LimitError, read_bytes, require_depth
from cxredge_train.config import TrainingConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def config_path(name_or_path: str) -> Path:
    """The TOML file of a configuration that comes with cxredge (``edge``), or the path of one's own.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return path
    package = Path(__file__).parent
    folders = [package / "configs", package.parent / "configs"]  # in the wheel, in a checkout
    for folder in folders:
        if (folder / f"{name_or_path}.toml").is_file():
            return folder / f"{name_or_path}.toml"
    known = sorted(file.stem for folder in folders for file in folder.glob("*.toml"))
    raise ConfigError(f"no configuration '{name_or_path}'; there are {', '.join(known)}, or give a .toml file")


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainingConfig:
    """Read a configuration; fields that it leaves out keep their defaults.

    Args:
        path: the TOML file.
        changes: fields set after reading, each as ``table.field=value`` with the value in TOML.

    Raises:
        ConfigError: the file cannot be read, or a field is unknown, of the wrong type or out of range.
    """
    try:
        table = _parse(read_bytes(path, LARGEST_CONFIG).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    for change in changes:
        _apply(change, table)
    try:
        return _build(TrainingConfig, table, "")
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _parse(text: str) -> dict[str, Any]:
    """The tables of a TOML text; raises :class:`ValueError` where it is none, or too deep."""
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise LimitError(TOO_DEEP) from error
    require_depth(table)
    return table


def _apply(change: str, table: dict[str, Any]) -> None:
    """Set one field of a TOML table."""
    try:
        ((section, value),) = _parse(change).items()
    except ValueError as error:
        raise ConfigError(f"'{change}' is not one table.field=value in TOML") from error
    if isinstance(value, dict) and isinstance(table.get(section), dict):
        table[section] = {**table[section], **value}
    else:
        table[section] = value


T = TypeVar("T")


def _build(kind: type[T], table: dict[str, Any], prefix: str) -> T:
    """A dataclass from a TOML table, checking names and types."""
    types = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(f"unknown field {prefix}{unknown[0]}; known: {', '.join(sorted(known))}")
    return kind(**{name: _convert(types[name], value, prefix + name) for name, value in table.items()})


def _convert(kind: Any, value: Any, name: str) -> Any:
    """``value`` as ``kind``; integers pass as floats, lists as tuples."""
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} must be a table")
        return _build(kind, value, f"{name}.")  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if get_origin(kind) is tuple:
        return _convert_tuple(get_args(kind), value, name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name} must be {kind.__name__}, not {value!r}")
    return value


def _convert_tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ConfigError(f"{name} must have {len(kinds)} values, not {len(value)}")
    return tuple(_convert(kind, item, f"{name}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))
