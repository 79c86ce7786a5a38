"""A checkpoint gives back what was saved, holds no code, and says what is wrong with a damaged one."""

from __future__ import annotations

import itertools
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cxredge.errors import BackendError, CheckpointError, CxredgeError
from cxredge_train.checkpoint import load_trained, resume, save_checkpoint, start_from
from cxredge_train.config import TaskConfig, TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.inference import CheckpointBackend
from cxredge_train.networks import a_seg

CPU = torch.device("cpu")
FACTS = {"seconds": 12.5, "data_sha256": "00ff", "commit": None, "validation": {"a_seg": 0.75}}

pytestmark = pytest.mark.usefixtures("small_code_generators")


@pytest.fixture(scope="module")
def state(config: TrainingConfig, small_code_generators: None) -> TrainingState:
    """A state after one step, so that averages and optimisers have something to say."""
    state = TrainingState(config, CPU)
    state.update_averages()
    sum(p.square().sum() for p in state.framework.parameters()).backward()
    for optimiser in state.optimisers.values():
        optimiser.step()
    state.update_averages()
    state.adaptation_code = torch.linspace(-1, 1, 16)
    state.watch_discriminator(0.5)
    state.iteration = 7
    return state


@pytest.fixture
def saved(folder: Path, config: TrainingConfig, state: TrainingState) -> Path:
    save_checkpoint(folder, config, state, FACTS)
    return folder


def load(folder: Path, config: TrainingConfig) -> TrainingState:
    state = TrainingState(config, CPU)
    resume(folder, config, state)
    return state


def test_a_checkpoint_is_three_files(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"config.toml", "weights.safetensors", "state.pt"}


def test_a_state_comes_back_bit_for_bit(saved: Path, config: TrainingConfig, state: TrainingState) -> None:
    restored = TrainingState(config, CPU)
    with torch.no_grad():
        for parameter in restored.framework.parameters():
            parameter.zero_()
    assert resume(saved, config, restored) == FACTS
    torch.testing.assert_close(restored.state_dict(), state.state_dict(), rtol=0, atol=0)
    assert restored.iteration == 7
    assert restored.discriminator_loss == state.discriminator_loss != 1
    assert torch.equal(restored.adaptation_code, state.adaptation_code)
    name = "heads.1.weight"  # the discriminator and its optimiser too
    assert torch.equal(
        restored.framework.discriminator.get_parameter(name), state.framework.discriminator.get_parameter(name)
    )
    assert len(restored.optimisers["discriminator"].state) == len(list(state.framework.discriminator.parameters()))


def test_the_weights_file_holds_every_network_and_the_averages(saved: Path, state: TrainingState) -> None:
    tensors = load_file(saved / "weights.safetensors")
    assert {name.split(".")[0] for name in tensors} == {
        "generator",
        "code_generators",
        "style_encoder",
        "discriminator",
        "average",
        "a_self",
        "a_da_intra",
    }
    name = "encoder.0.conv1.weight"
    assert torch.equal(tensors[f"generator.{name}"], state.framework.generator.get_parameter(name))
    assert torch.equal(tensors[f"average.generator.{name}"], state.generator_average.get_parameter(name))
    assert not torch.equal(tensors[f"generator.{name}"], tensors[f"average.generator.{name}"])
    assert any(key.startswith("average.code_generators.") for key in tensors)
    assert any(key.startswith("average.style_encoder.") for key in tensors)


def test_the_generator_that_is_loaded_is_the_averaged_one(
    saved: Path, config: TrainingConfig, state: TrainingState
) -> None:
    trained = load_trained(saved)
    assert trained.config == config
    assert trained.facts == {**FACTS, "iteration": 7}
    assert not trained.generator.training
    image = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(trained.generator(image, a_seg()), state.generator_average(image, a_seg()))


def test_the_constants_of_inference_are_loaded(saved: Path, state: TrainingState) -> None:
    trained = load_trained(saved)
    with torch.no_grad():
        assert torch.equal(trained.self_code, state.code_average.f_e(torch.ones(1, 4))[0])
    assert torch.equal(trained.adaptation_code, state.adaptation_code)


@pytest.mark.parametrize(
    ("iteration", "adapted", "distilled"),
    [(1, False, False), (2, False, False), (3, True, False), (5, True, False), (6, True, True)],
)
def test_a_checkpoint_knows_which_stages_have_begun(
    folder: Path, config: TrainingConfig, iteration: int, adapted: bool, distilled: bool
) -> None:
    state = TrainingState(config, CPU)
    state.iteration = iteration
    save_checkpoint(folder, config, state, FACTS)
    trained = load_trained(folder)
    assert (trained.adapted, trained.distilled) == (adapted, distilled)


def test_a_run_that_never_draws_adaptation_has_not_adapted(folder: Path, config: TrainingConfig) -> None:
    tasks = TaskConfig(inter_to_intra=0, intra_to_inter=0, inter_to_inter=0, intra_to_intra=0)
    never = replace(config, tasks=tasks)
    state = TrainingState(never, CPU)
    state.iteration = never.schedule.iterations
    save_checkpoint(folder, never, state, FACTS)
    trained = load_trained(folder)
    assert (trained.adapted, trained.distilled) == (False, True)
    with pytest.raises(BackendError, match="has no indirect path"):
        CheckpointBackend(folder, "indirect")


@pytest.mark.parametrize("name", ["config.toml", "state.pt", "weights.safetensors"])
def test_every_file_can_be_read_by_the_same_people(saved: Path, name: str, tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert stat.S_IMODE((saved / name).stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_checkpoint_of_another_configuration_is_refused(saved: Path, config: TrainingConfig) -> None:
    other = replace(config, optimiser=replace(config.optimiser, learning_rate=5e-4))
    with pytest.raises(CheckpointError, match="another configuration"):
        load(saved, other)


# Starting another run from it


def test_a_new_run_starts_from_the_averages_and_the_discriminator(
    saved: Path, config: TrainingConfig, state: TrainingState
) -> None:
    fresh = TrainingState(replace(config, run=replace(config.run, seed=9), name="other"), CPU)
    start_from(saved, fresh)
    for name in ("generator", "code_generators", "style_encoder"):
        average = state.averages[name].module.state_dict()
        torch.testing.assert_close(getattr(fresh.framework, name).state_dict(), average, rtol=0, atol=0)
        torch.testing.assert_close(fresh.averages[name].module.state_dict(), average, rtol=0, atol=0)
        assert any(
            not torch.equal(a, b)
            for a, b in zip(average.values(), getattr(state.framework, name).state_dict().values(), strict=True)
        )
    own = state.framework.discriminator.state_dict()
    torch.testing.assert_close(fresh.framework.discriminator.state_dict(), own, rtol=0, atol=0)
    assert fresh.iteration == 0
    assert not fresh.optimisers["generator"].state


@pytest.mark.parametrize("change", [{"width": 4}, {"shared_code_trunk": False}], ids=str)
def test_starting_from_networks_of_other_sizes_is_refused(
    saved: Path, config: TrainingConfig, change: dict[str, Any]
) -> None:
    other = TrainingState(replace(config, network=replace(config.network, **change)), CPU)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot start from it"):
        start_from(saved, other)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_starting_from_something_else_is_refused(saved: Path, config: TrainingConfig, content: bytes | None) -> None:
    (saved / "weights.safetensors").unlink()
    if content is not None:
        (saved / "weights.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot start from it"):
        start_from(saved, TrainingState(config, CPU))


# Damage


def truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.3, 0.999])
@pytest.mark.parametrize("name", ["state.pt", "weights.safetensors"])
def test_a_truncated_file_is_refused_by_name(saved: Path, config: TrainingConfig, name: str, share: float) -> None:
    truncate(saved / name, share)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read"):
        load(saved, config) if name == "state.pt" else load_trained(saved)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a checkpoint at all", b"PK\x03\x04" + b"\xff" * 99])
@pytest.mark.parametrize("name", ["state.pt", "weights.safetensors"])
def test_a_file_of_something_else_is_refused_by_name(
    saved: Path, config: TrainingConfig, name: str, content: bytes
) -> None:
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read"):
        load(saved, config) if name == "state.pt" else load_trained(saved)


@pytest.mark.parametrize("name", ["state.pt", "weights.safetensors"])
def test_a_missing_file_is_refused_by_name(saved: Path, config: TrainingConfig, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load(saved, config) if name == "state.pt" else load_trained(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [1, 2],
        lambda content: {**content, "framework": 5},
        lambda content: {**content, "averages": {}},
        lambda content: {**content, "optimisers": []},
        lambda content: {**content, "iteration": "seven"},
        lambda content: {**content, "iteration": None},
        lambda content: {key: value for key, value in content.items() if key != "facts"},
    ],
    ids=["list", "framework", "averages", "optimisers", "iteration", "no-iteration", "no-facts"],
)
def test_a_state_file_with_other_content_is_refused(
    saved: Path, config: TrainingConfig, change: Callable[[dict[str, Any]], Any]
) -> None:
    content = torch.load(saved / "state.pt", weights_only=True)
    torch.save(change(content), saved / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be read"):
        load(saved, config)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"facts": "{}"},
        {"facts": "not JSON", "iteration": "7"},
        {"facts": "[1]", "iteration": "7"},
        {"facts": "{}", "iteration": "x"},
    ],
    ids=str,
)
def test_weights_with_wrong_metadata_are_refused(saved: Path, metadata: dict[str, str] | None) -> None:
    tensors = load_file(saved / "weights.safetensors")
    save_file(tensors, saved / "weights.safetensors", metadata if metadata is None else {"format": "1", **metadata})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot be read"):
        load_trained(saved)


def test_weights_of_a_newer_format_are_refused(saved: Path) -> None:
    tensors = load_file(saved / "weights.safetensors")
    save_file(tensors, saved / "weights.safetensors", {"format": "2", "facts": "{}", "iteration": "7"})
    with pytest.raises(CheckpointError, match="format"):
        load_trained(saved)


def test_weights_of_another_width_are_refused(saved: Path, config: TrainingConfig) -> None:
    wider = replace(config, network=replace(config.network, width=4))
    (saved / "config.toml").write_text(wider.to_toml())
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: cannot be read"):
        load_trained(saved)


@pytest.mark.parametrize("content", [b"", b"[network\n", b"\xff\xff"])
def test_a_damaged_configuration_is_refused(saved: Path, config: TrainingConfig, content: bytes) -> None:
    (saved / "config.toml").write_bytes(content)
    with pytest.raises(CxredgeError):
        load(saved, config)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_trained(tmp_path)


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["torch", "legacy torch", "pickle"])
def test_code_in_a_state_file_is_refused_and_never_runs(
    saved: Path, config: TrainingConfig, tmp_path: Path, form: str
) -> None:
    mark = tmp_path / "it ran"
    content = {"facts": Attack(mark)}
    if form == "pickle":
        (saved / "state.pt").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, saved / "state.pt", _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be read"):
        load(saved, config)
    assert not mark.exists()
    pickle.loads(pickle.dumps(content))  # the attack is a real one
    assert mark.exists()


# A kill while saving


class KillError(Exception):
    """Stands for the process's end."""


@pytest.mark.parametrize("file", [0, 1, 2])
def test_a_kill_while_saving_leaves_a_whole_state(
    saved: Path, config: TrainingConfig, state: TrainingState, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    older, newer = load(saved, config), load(saved, config)
    newer.iteration = 9
    synchronise, calls = os.fsync, itertools.count()

    def killed(descriptor: int) -> None:
        if next(calls) == file:
            raise KillError
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KillError):
        save_checkpoint(saved, config, newer, FACTS)
    monkeypatch.undo()

    assert list(saved.glob("*.part"))
    assert load_trained(saved).facts["iteration"] in (7, 9)
    assert load(saved, config).iteration in (older.iteration, newer.iteration)
    save_checkpoint(saved, config, newer, FACTS)
    assert load(saved, config).iteration == load_trained(saved).facts["iteration"] == 9
    assert not list(saved.glob("*.part"))


def test_the_half_written_file_of_a_kill_does_not_hurt(
    saved: Path, config: TrainingConfig, state: TrainingState
) -> None:
    for name in ("config.toml", "state.pt", "weights.safetensors"):
        (saved / f"{name}.part").write_bytes(b"half a fi")
    assert load(saved, config).iteration == 7
    load_trained(saved)
    save_checkpoint(saved, config, state, FACTS)
    assert not list(saved.glob("*.part"))
