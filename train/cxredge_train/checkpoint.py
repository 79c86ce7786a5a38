"""A training checkpoint on disk: configuration, weights, optimiser state. No pickled code, ever.

``weights.safetensors`` is what inference and export read; ``state.pt`` alone is enough to resume.
Each file is replaced atomically, so a run that is killed while saving keeps the save before.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from cxredge.errors import CheckpointError, OutputError
from cxredge.limits import LARGEST_WEIGHTS, LARGEST_WEIGHTS_HEADER, LimitError, parse_json, require_file_size
from cxredge_train.config import TrainingConfig
from cxredge_train.config_file import read_config
from cxredge_train.framework import AVERAGED, TrainingState, build_generator
from cxredge_train.networks import CODE_SIZE, Generator
from cxredge_train.unet import UNet

CONFIG = "config.toml"
WEIGHTS = "weights.safetensors"
STATE = "state.pt"
SELF_CODE = "a_self"
ADAPTATION_CODE = "a_da_intra"
AVERAGED_GENERATOR = "average.generator."
"""What the names of the tensors begin with that inference uses."""
STAGES = "stages"
"""Folder below a checkpoint that keeps the weights of each finished stage, as checkpoints of inference."""
FORMAT = 1
LENGTH_BYTES = 8
"""A safetensors file starts with the length of its header as 64 bits, little-endian."""


def save_checkpoint(folder: Path, config: TrainingConfig, state: TrainingState, facts: dict[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: created if missing.
        config: the run's configuration.
        state: what to save.
        facts: JSON values for the weights' metadata: data hash, validation Dice, time spent.

    Raises:
        OutputError: it cannot be written.
    """
    replace_file(folder / STATE, lambda path: torch.save({"facts": facts, **state.state_dict()}, path))
    save_weights(folder, config, state, facts)


def save_weights(folder: Path, config: TrainingConfig, state: TrainingState, facts: dict[str, Any]) -> None:
    """Write what inference, export and ``--init`` read of a checkpoint; arguments as of :func:`save_checkpoint`."""
    write_weights(folder, config, weights(state), {**facts, "iteration": state.iteration})


def write_weights(folder: Path, config: TrainingConfig, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a checkpoint for inference, export and ``--init``.

    Args:
        folder: created if missing.
        config: of the run that ``tensors`` come from.
        tensors: as :func:`weights` gives them.
        facts: of the run, with its ``iteration``.

    Raises:
        OutputError: it cannot be written.
    """
    metadata = {
        "format": str(FORMAT),
        "iteration": str(facts["iteration"]),
        "config_sha256": config.content_hash(),
        "facts": json.dumps({name: value for name, value in facts.items() if name != "iteration"}),
    }
    replace_file(folder / CONFIG, lambda path: path.write_text(config.to_toml(), encoding="utf-8"))
    replace_file(folder / WEIGHTS, lambda path: path.write_bytes(safetensors_bytes(tensors, metadata)))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file by what ``write`` writes, at once, when that is on the disk; makes its folder.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's, of a disk that is full
        with suppress(OSError):
            part.unlink()
        reason = error.strerror if isinstance(error, OSError) else None
        raise OutputError(f"{path}: cannot be written: {reason or error}") from error


def weights(state: TrainingState) -> dict[str, Tensor]:
    """Every network's tensors, and the moving averages under ``average.NETWORK``."""
    tensors = dict(state.framework.state_dict())
    for name in AVERAGED:
        module = state.averages[name].module
        assert isinstance(module, torch.nn.Module)
        tensors |= {f"average.{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    tensors |= {SELF_CODE: state.self_code(), ADAPTATION_CODE: state.adaptation_code}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def resume(folder: Path, config: TrainingConfig, state: TrainingState) -> dict[str, Any]:
    """Restore ``state`` from a checkpoint of the same configuration; returns the saved facts.

    Raises:
        CheckpointError: missing, damaged, or made with another configuration.
    """
    saved = read_config(folder / CONFIG)
    if saved != config:
        raise CheckpointError(
            f"{folder}: was trained with another configuration; resume with its {CONFIG}, or choose another folder"
        )
    path = folder / STATE
    try:
        require_file_size(path, LARGEST_WEIGHTS)
        content = torch.load(path, map_location="cpu", weights_only=True)
        state.load_state_dict(content)
        facts: dict[str, Any] = content["facts"]
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return facts


def require_weights(path: Path) -> None:
    """Check the size of a safetensors file, and of the JSON at its start, before it is opened.

    Raises:
        LimitError: one is too large.
        OSError: it cannot be read.
    """
    require_file_size(path, LARGEST_WEIGHTS)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > LARGEST_WEIGHTS_HEADER:
        raise LimitError(f"has a header of {length} bytes, at most {LARGEST_WEIGHTS_HEADER} are read")


@dataclass(frozen=True)
class Trained:
    """What inference needs of a checkpoint.

    Attributes:
        generator: the averaged generator, or U-Net.
        config: the run's configuration.
        facts: of the run, with its ``iteration``.
        self_code: a_self's encoder code ``(16,)``.
        adaptation_code: a_da^X ``(16,)``, the mean of S over the INTRA training images.
    """

    generator: Generator | UNet
    config: TrainingConfig
    facts: dict[str, Any]
    self_code: Tensor
    adaptation_code: Tensor

    @property
    def folding_generator(self) -> Generator:
        """The generator, where it is one whose codes can be folded.

        Raises:
            CheckpointError: it is the comparison's U-Net, which has no codes and is not exported.
        """
        if isinstance(self.generator, UNet):
            raise CheckpointError(f"{self.config.name}: is a U-Net; only the generator G is exported")
        return self.generator

    @property
    def distilled(self) -> bool:
        """Whether stage 2 has begun, so that a_self means something."""
        schedule = self.config.schedule
        return int(self.facts["iteration"]) > schedule.supervised + schedule.adaptation

    @property
    def adapted(self) -> bool:
        """Whether domain adaptation has begun, so that the indirect path means something."""
        return self.config.tasks.adapts and int(self.facts["iteration"]) > self.config.schedule.supervised


def load_trained(folder: Path) -> Trained:
    """The averaged generator of a checkpoint and its constants.

    Raises:
        CheckpointError: missing or damaged.
    """
    if not os.path.isfile(folder / CONFIG):  # noqa: PTH113 (never raises)
        raise CheckpointError(f"{folder}: is not a checkpoint (no {CONFIG})")
    config = read_config(folder / CONFIG)
    path = folder / WEIGHTS
    try:
        require_weights(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if int(metadata["format"]) != FORMAT:
                raise CheckpointError(f"{path}: has format {metadata['format']}, this cxredge reads {FORMAT}")
            tensors = {
                key.removeprefix(AVERAGED_GENERATOR): file.get_tensor(key)
                for key in file.keys()  # noqa: SIM118
                if key.startswith(AVERAGED_GENERATOR)
            }
            self_code, adaptation_code = (file.get_tensor(name) for name in (SELF_CODE, ADAPTATION_CODE))
        for code in (self_code, adaptation_code):
            if code.shape != (CODE_SIZE,) or code.dtype != torch.float32:
                raise CheckpointError(f"{path}: a code has not {CODE_SIZE} values of single precision")
        generator = build_generator(config.network)
        generator.load_state_dict(tensors)
        facts = {**parse_json(metadata["facts"]), "iteration": int(metadata["iteration"])}
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return Trained(generator.eval(), config, facts, self_code, adaptation_code)


def read_weights(folder: Path, complaint: str = "cannot be read") -> dict[str, Tensor]:
    """Every tensor of a checkpoint, as :func:`weights` gave them; ``complaint`` is what the error says of the file.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = folder / WEIGHTS
    try:
        require_weights(path)
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: {complaint}: {error}") from error


def start_from(folder: Path, state: TrainingState) -> None:
    """Give the networks and their averages the weights of another checkpoint of the same sizes.

    Averages stand for the networks that have one, so training goes on from the better weights.

    Raises:
        CheckpointError: missing, damaged, or of other sizes.
    """
    tensors = read_weights(folder, complaint := "cannot start from it")
    try:
        for name in (*AVERAGED, "discriminator"):
            prefix = f"average.{name}." if name in AVERAGED else f"{name}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            getattr(state.framework, name).load_state_dict(own)
            if name in AVERAGED:
                averaged = state.averages[name].module
                assert isinstance(averaged, torch.nn.Module)
                averaged.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {complaint}: {error}") from error
