"""A model file becomes a checkpoint that computes the same, whatever was folded; what is no such file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from cxredge.bundle import bundled_model
from cxredge.cli import main
from cxredge.engine.record import file_sha256
from cxredge.errors import CheckpointError, CxredgeError, ModelError
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model, write_model
from cxredge_export.export import export_model
from cxredge_export.folding import FOLDS
from cxredge_export.parity import in_onnxruntime, measure_parity
from cxredge_export.precision import to_fp16
from cxredge_export.reference import unfolded
from cxredge_export.unfolding import unfold_model
from cxredge_train import networks
from cxredge_train.checkpoint import CONFIG, STATE, WEIGHTS, load_trained, start_from
from cxredge_train.framework import TrainingState
from cxredge_train.networks import a_seg, a_self

CHOICES = [(), *((name,) for name in FOLDS), tuple(FOLDS), ("shortcut", "pool-conv", "up-phases", "head")]


@pytest.fixture(autouse=True)
def small_code_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the method's 512 units a checkpoint would have 100 MB."""
    monkeypatch.setattr(networks, "CODE_GENERATOR_UNITS", 8)


@pytest.mark.parametrize("folds", CHOICES, ids="+".join)
def test_every_fold_is_undone(
    supervised: Path, radiographs: list[Radiograph], tmp_path: Path, folds: tuple[str, ...]
) -> None:
    export_model(supervised, tmp_path / "model.onnx", radiographs, folds=folds)
    parity = unfold_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    assert (parity.images, parity.flipped_pixels) == (2, 0)
    before, after = load_trained(supervised).folding_generator, load_trained(tmp_path / "again").folding_generator
    if "norm-bias" not in folds:
        for name, tensor in after.encoder.named_parameters():
            if "adaptive" not in name:
                wanted = before.encoder.get_parameter(name)
                np.testing.assert_allclose(tensor.detach(), wanted.detach(), rtol=0, atol=1e-6, err_msg=name)
    model, _ = read_model(tmp_path / "model.onnx")
    assert measure_parity(model, unfolded(before, a_seg()), radiographs, 32).max_abs_difference < 1e-4
    assert parity.max_abs_difference < 1e-4


def test_a_folded_a_self_becomes_the_new_a_seg(checkpoint: Path, radiographs: list[Radiograph], tmp_path: Path) -> None:
    contract = export_model(checkpoint, tmp_path / "model.onnx", radiographs)
    assert contract.code == "a_self"
    unfold_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    trained, original = load_trained(tmp_path / "again"), load_trained(checkpoint)
    assert not trained.distilled
    codes = a_self(original.self_code[None])
    image = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    found = unfolded(trained.folding_generator, a_seg())(image)
    np.testing.assert_allclose(found, unfolded(original.folding_generator, codes)(image), rtol=0, atol=1e-4)
    assert np.abs(found - unfolded(original.folding_generator, a_seg())(image)).max() > 1e-3


def test_it_says_where_it_is_from_and_can_be_exported_and_started_from(
    supervised: Path, radiographs: list[Radiograph], tmp_path: Path
) -> None:
    original = export_model(supervised, tmp_path / "model.onnx", radiographs)
    unfold_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    assert not (tmp_path / "again" / STATE).exists()
    trained = load_trained(tmp_path / "again")
    assert trained.facts["init"] == file_sha256(tmp_path / "model.onnx")
    again = export_model(tmp_path / "again", tmp_path / "again.onnx", radiographs, name="model")
    kept = ("data", "data_sha256", "commit", "iterations", "training_seconds", "augmentation")
    assert [again.provenance[name] for name in kept] == [original.provenance[name] for name in kept]
    first, second = (in_onnxruntime(read_model(tmp_path / f"{name}.onnx")[0]) for name in ("model", "again"))
    image = np.linspace(1, -1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    np.testing.assert_allclose(second(image), first(image), rtol=0, atol=1e-4)

    state = TrainingState(trained.config, next(trained.generator.parameters()).device)
    start_from(tmp_path / "again", state)
    for name, tensor in trained.generator.state_dict().items():
        assert tensor.equal(state.framework.generator.state_dict()[name]), name


def test_the_bundled_model_is_unfolded_on_the_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["unfold", "bundled", "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "parity on 8 images: 0 of 524288 mask pixels flipped" in done.output
    trained = load_trained(tmp_path / "run")
    assert trained.config.network.width == 16
    assert trained.facts["init"] == file_sha256(bundled_model())


def without(path: Path, name: str, target: Path) -> None:
    """Write the model in ``path`` with the tensor ``name`` under another name."""
    model, _ = read_model(path)
    for entry in model.graph.initializer:
        entry.name = "other" if entry.name == name else entry.name
    for node in model.graph.node:
        for i, read in enumerate(node.input):
            node.input[i] = "other" if read == name else read
    write_model(model, target)


def reshaped(path: Path, name: str, target: Path) -> None:
    """Write the model in ``path`` with the kernel ``name`` padded to 5x5, which computes the same."""
    model, _ = read_model(path)
    for entry in model.graph.initializer:
        if entry.name == name:
            entry.CopyFrom(
                numpy_helper.from_array(np.pad(numpy_helper.to_array(entry), ((0, 0), (0, 0), (1, 1), (1, 1))), name)
            )
    for node in model.graph.node:
        if name in node.input:
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("pads", [2, 2, 2, 2]))
    write_model(model, target)


def rewired(path: Path, _name: str, target: Path) -> None:
    """Write the model in ``path`` with another slope of its activations, which no weight says."""
    model, _ = read_model(path)
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("alpha", 0.5))
    write_model(model, target)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (without, "is not a generator as 'cxredge export' writes it"),
        (reshaped, r"decoder.0.residual.conv1.weight has the shape \(16, 16, 5, 5\), not \(16, 16, 3, 3\)"),
        (rewired, "the model does not compute what its weights say"),
    ],
)
def test_another_network_is_refused(
    supervised: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    spoil: Callable[[Path, str, Path], None],
    complaint: str,
) -> None:
    export_model(supervised, tmp_path / "model.onnx", radiographs)
    spoil(tmp_path / "model.onnx", "decoder.0.residual.conv1.weight", tmp_path / "spoiled.onnx")
    with pytest.raises(ModelError, match=complaint):
        unfold_model(tmp_path / "spoiled.onnx", tmp_path / "again", radiographs)
    assert not (tmp_path / "again").exists()


def test_a_model_in_fp16_is_refused(supervised: Path, radiographs: list[Radiograph], tmp_path: Path) -> None:
    export_model(supervised, tmp_path / "model.onnx", radiographs)
    write_model(to_fp16(read_model(tmp_path / "model.onnx")[0]), tmp_path / "typed.onnx")
    with pytest.raises(ModelError, match="is in fp16; only the FP32 model"):
        unfold_model(tmp_path / "typed.onnx", tmp_path / "again", radiographs)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, STATE])
def test_a_folder_with_a_checkpoint_is_left_alone(tmp_path: Path, radiographs: list[Radiograph], name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match="holds a checkpoint already"):
        unfold_model(bundled_model(), tmp_path, radiographs)
    assert (tmp_path / name).read_text() == "mine"


def test_no_model_is_a_clear_error(tmp_path: Path, radiographs: list[Radiograph]) -> None:
    with pytest.raises(CxredgeError, match="there is no such model file"):
        unfold_model(tmp_path / "none.onnx", tmp_path / "again", radiographs)
