"""A model file becomes a checkpoint that computes the same, whatever was folded; what is no such file is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from cxredge.bundle import bundled_model
from cxredge.cli import main
from cxredge.contract import Contract
from cxredge.engine.record import file_sha256
from cxredge.errors import CheckpointError, CxredgeError, ModelError, ParityError
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import add_contract, read_model, write_model
from cxredge_export.conversion import to_onnx
from cxredge_export.export import RESEARCH_LICENCE, export_model
from cxredge_export.folding import FOLDS, fold_code
from cxredge_export.parity import in_onnxruntime
from cxredge_export.precision import to_fp16
from cxredge_export.reference import unfolded
from cxredge_export.unfolding import ENLARGED_TAPS, POOLED_TAPS, checkpoint_from_model, solved
from cxredge_train import networks
from cxredge_train.checkpoint import CONFIG, STATE, WEIGHTS, load_trained, start_from
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Generator, NetworkConfig
from cxredge_train.resampled_conv import enlarged_kernel, pooled_kernel

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
    parity = checkpoint_from_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    assert (parity.images, parity.flipped_pixels) == (2, 0)
    before, after = (load_trained(folder).folding_generator for folder in (supervised, tmp_path / "again"))
    for part in ("image_stem", "encoder", "decoder"):
        for name, tensor in before.get_submodule(part).named_parameters():
            if "adaptive" not in name and not ("norm-bias" in folds and name.endswith("bias") and "norm" not in name):
                found = after.get_submodule(part).get_parameter(name).detach()
                np.testing.assert_allclose(found, tensor.detach(), rtol=0, atol=1e-6, err_msg=f"{part}.{name}")
    for wanted, found in zip(before.mask_head[2].parameters(), after.mask_head[2].parameters(), strict=True):
        torch.testing.assert_close(found[1] - found[0], wanted[1] - wanted[0], rtol=0, atol=1e-6)
    assert parity.max_abs_difference < 1e-4


def test_kernels_are_solved_for() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(solved(pooled_kernel(weight), POOLED_TAPS), weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        solved(enlarged_kernel(weight).transpose(0, 1), ENLARGED_TAPS), weight, rtol=0, atol=1e-6
    )


def test_an_encoder_without_affine_norms_is_found_to_be_one(radiographs: list[Radiograph], tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, input_size=32, encoder_affine=False)).eval()
    model = to_onnx(fold_code(generator, None), 32)
    add_contract(model, Contract(name="bare", width=2, input_size=32, code="a_seg", licence="none"))
    write_model(model, tmp_path / "model.onnx")
    checkpoint_from_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    trained = load_trained(tmp_path / "again")
    assert not trained.config.network.encoder_affine
    assert (trained.config.name, trained.config.data.intra, trained.facts["seconds"]) == ("bare", ("unknown",), 0)


def test_a_folded_a_self_becomes_the_new_a_seg(checkpoint: Path, radiographs: list[Radiograph], tmp_path: Path) -> None:
    contract = export_model(checkpoint, tmp_path / "model.onnx", radiographs)
    assert contract.code == "a_self"
    checkpoint_from_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    trained, original = load_trained(tmp_path / "again"), load_trained(checkpoint)
    assert not trained.distilled
    image = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    wanted = unfolded(original.folding_generator, original.self_code)(image)
    for code in (None, trained.self_code):  # a_self starts equal to a_seg
        found = unfolded(trained.folding_generator, code)(image)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert np.abs(wanted - unfolded(original.folding_generator, None)(image)).max() > 1e-3


def test_it_says_where_it_is_from_and_can_be_exported_and_started_from(
    supervised: Path, radiographs: list[Radiograph], tmp_path: Path
) -> None:
    original = export_model(supervised, tmp_path / "model.onnx", radiographs)
    checkpoint_from_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    assert not (tmp_path / "again" / STATE).exists()
    trained = load_trained(tmp_path / "again")
    again = export_model(tmp_path / "again", tmp_path / "again.onnx", radiographs, name="model")
    kept = ("config", "data", "data_sha256", "commit", "iterations", "training_seconds", "augmentation", "started_from")
    assert [again.provenance[name] for name in kept] == [original.provenance[name] for name in kept]
    assert again.provenance["unfolded_from"] == {
        "sha256": file_sha256(tmp_path / "model.onnx"),
        "name": "model",
        "code": "a_seg",
        "licence": RESEARCH_LICENCE,
    }
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
    assert trained.facts["unfolded_from"]["sha256"] == file_sha256(bundled_model())


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
    ("spoil", "error", "complaint"),
    [
        (
            without,
            ModelError,
            "is not a generator as 'cxredge export' writes it: it has no decoder.0.residual.conv1.weig",
        ),
        (reshaped, ModelError, r"its decoder.0.residual.conv1.weight has the shape \(16, 16, 5, 5\)"),
        (rewired, ParityError, "spoiled.onnx: computes something else than its weights say"),
    ],
)
def test_another_network_is_refused(
    supervised: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    spoil: Callable[[Path, str, Path], None],
    error: type[CxredgeError],
    complaint: str,
) -> None:
    export_model(supervised, tmp_path / "model.onnx", radiographs)
    spoil(tmp_path / "model.onnx", "decoder.0.residual.conv1.weight", tmp_path / "spoiled.onnx")
    with pytest.raises(error, match=complaint):
        checkpoint_from_model(tmp_path / "spoiled.onnx", tmp_path / "again", radiographs)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"width": 512}, r"its stem.weight has the shape \(2, 1, 3, 3\)"),  # before 30 GB are asked for
        ({"width": 4096}, "network.width must be"),
        ({"input_size": 33}, "33"),
        ({"input_size": 64}, "64"),
        ({"provenance": {"data": "jsrt"}}, "provenance.data is 'jsrt'"),
        ({"provenance": {"iterations": "many"}}, "provenance.iterations is 'many'"),
        ({"provenance": {"config": 3}}, "provenance.config is 3"),
    ],
)
def test_a_contract_that_lies_is_refused(
    converted: onnx.ModelProto,
    radiographs: list[Radiograph],
    tmp_path: Path,
    change: dict[str, Any],
    complaint: str,
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(converted)
    honest = Contract(name="m", width=2, input_size=32, code="a_seg", licence="none")
    add_contract(model, replace(honest, **change))
    write_model(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=complaint):
        checkpoint_from_model(tmp_path / "model.onnx", tmp_path / "again", radiographs)
    assert not (tmp_path / "again").exists()


def test_a_model_in_fp16_is_refused(supervised: Path, radiographs: list[Radiograph], tmp_path: Path) -> None:
    export_model(supervised, tmp_path / "model.onnx", radiographs)
    write_model(to_fp16(read_model(tmp_path / "model.onnx")[0]), tmp_path / "typed.onnx")
    with pytest.raises(ModelError, match="is in fp16; only the FP32 model"):
        checkpoint_from_model(tmp_path / "typed.onnx", tmp_path / "again", radiographs)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, STATE])
def test_a_folder_with_a_checkpoint_is_left_alone(tmp_path: Path, radiographs: list[Radiograph], name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match="holds a checkpoint already"):
        checkpoint_from_model(bundled_model(), tmp_path, radiographs)
    assert (tmp_path / name).read_text() == "mine"


def test_no_model_is_a_clear_error(tmp_path: Path, radiographs: list[Radiograph]) -> None:
    with pytest.raises(CxredgeError, match="there is no such model file"):
        checkpoint_from_model(tmp_path / "none.onnx", tmp_path / "again", radiographs)
