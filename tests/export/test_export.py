"""From a checkpoint to a model file that the runtime takes, and never to a file that differs from it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cxredge import Segmenter
from cxredge.backends import open_backend
from cxredge.cli import main
from cxredge.contract import CONTRACT_KEY, Contract, parse_contract
from cxredge.errors import CheckpointError, ParityError
from cxredge.postprocessing import lung_mask
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model, write_model
from cxredge_export import export
from cxredge_export.deployed import DeployedNetwork, Difference
from cxredge_export.export import export_model, unmeasured_contract
from cxredge_export.folding import FOLDS
from cxredge_export.precision import to_fp16
from cxredge_export.reference import lung_logit
from cxredge_train.checkpoint import load_trained
from cxredge_train.inference import CheckpointBackend
from cxredge_train.networks import a_seg, a_self


@pytest.fixture(scope="module")
def exported(
    checkpoint: Path, radiographs: list[Radiograph], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Contract]:
    path = tmp_path_factory.mktemp("exported") / "tiny-model.onnx"
    return path, export_model(checkpoint, path, radiographs, measured={"datasets": {"made": {"dice": 0.5}}})


def test_the_contract_says_what_the_model_is_and_where_it_is_from(
    exported: tuple[Path, Contract], checkpoint: Path
) -> None:
    contract = exported[1]
    trained = load_trained(checkpoint)
    config, facts = trained.config, trained.facts
    assert (contract.name, contract.width, contract.input_size) == ("tiny-model", 2, 32)
    assert (contract.code, contract.precision, contract.folds) == ("a_self", "fp32", ("adain", *FOLDS))
    assert contract.provenance == {
        "config": "tiny",
        "config_sha256": config.content_hash(),
        "data_sha256": facts["data_sha256"],
        "data": ["lungs", "sick"],
        "augmentation": False,
        "commit": facts["commit"],
        "started_from": None,
        "iterations": 12,
        "training_seconds": round(facts["seconds"]),
        "validation": facts["validation"],
    }
    assert contract.parity["images"] == 2
    assert contract.parity["flipped_pixels"] == 0
    assert contract.parity["folding"]["flipped_pixels"] == 0
    assert 0 < contract.parity["folding"]["max_abs_difference"] < 1e-4
    assert contract.measured == {"datasets": {"made": {"dice": 0.5}}}
    assert contract.input_statistics is None
    assert contract.flag_thresholds is None
    assert "Research" in contract.licence


def test_the_contract_in_the_file_is_the_one_that_was_returned(exported: tuple[Path, Contract]) -> None:
    path, contract = exported
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert parse_contract(props[CONTRACT_KEY]) == contract
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_file_names_no_folder_of_the_machine_that_made_it(
    exported: tuple[Path, Contract], checkpoint: Path
) -> None:
    content = exported[0].read_bytes()
    for word in ("/home", str(Path.home()), str(checkpoint.parent), "site-packages"):
        assert word.encode() not in content


def test_the_runtime_loads_the_file_and_segments_as_the_checkpoint_does(
    exported: tuple[Path, Contract], checkpoint: Path, radiographs: list[Radiograph]
) -> None:
    path, contract = exported
    trained = load_trained(checkpoint)
    codes = a_self(trained.self_code[None])
    with Segmenter.load(path) as segmenter:
        assert segmenter.contract == contract
        for radiograph in radiographs:
            result = segmenter(radiograph)
            logits = lung_logit(trained.generator, codes, network_input(radiograph, 32)[None, None])[0, 0]
            np.testing.assert_allclose(result.logits, logits, atol=1e-3)
            assert result.mask.shape == radiograph.pixels.shape
            assert (result.mask == lung_mask(logits, radiograph.pixels.shape)).mean() > 0.999


def test_the_exported_model_gives_the_logits_of_the_checkpoints_direct_path(
    exported: tuple[Path, Contract], checkpoint: Path
) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 32, 32)).astype(np.float32)
    direct = CheckpointBackend(checkpoint).run(images)
    with closing(open_backend(exported[0])) as backend:
        np.testing.assert_allclose(backend.run(images), direct, atol=1e-3)
    trained = load_trained(checkpoint)
    assert trained.distilled
    a_seg_logits = [lung_logit(trained.generator, a_seg(), image[None])[0, 0] for image in images]
    assert np.abs(direct - np.stack(a_seg_logits)).max() > 0.1  # folding a_seg would be seen


def test_a_checkpoint_before_stage_2_is_exported_with_a_seg(
    supervised: Path, radiographs: list[Radiograph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded: list[nn.Module] = []

    def stop(network: nn.Module, size: int) -> onnx.ModelProto:
        folded.append(network)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "to_onnx", stop)
    with pytest.raises(KeyboardInterrupt):
        export_model(supervised, tmp_path / "model.onnx", radiographs)
    trained = load_trained(supervised)
    assert unmeasured_contract(trained, "name", "licence").code == "a_seg"
    image = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32)
    with torch.no_grad():
        found = folded[0](image).numpy()
    np.testing.assert_allclose(found, lung_logit(trained.generator, a_seg(), image.numpy()), atol=1e-4)


@pytest.fixture
def conversion_spoilt_by(exported: tuple[Path, Contract], monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the conversion, which takes seconds, give its earlier result with a number added to a weight."""

    def spoil(change: float) -> None:
        model = onnx.load(exported[0])
        tensor = max(model.graph.initializer, key=lambda one: math.prod(one.dims))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(change), tensor.name))
        monkeypatch.setattr(export, "to_onnx", lambda network, size: model)

    return spoil


def test_name_and_licence_can_be_given(
    checkpoint: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    conversion_spoilt_by: Callable[[float], None],
) -> None:
    conversion_spoilt_by(0)
    contract = export_model(checkpoint, tmp_path / "m.onnx", radiographs, name="mine", licence="own terms")
    assert (contract.name, contract.licence, contract.measured) == ("mine", "own terms", {})
    with Segmenter.load(tmp_path / "m.onnx") as segmenter:
        assert segmenter.contract == contract


def test_a_fold_that_is_not_exact_is_seen_and_writes_no_model(
    checkpoint: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    conversion_spoilt_by: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shift_head(network: DeployedNetwork) -> None:
        network.get_parameter("head.conv.bias").data[-1] += 0.5

    conversion_spoilt_by(0)
    monkeypatch.setitem(FOLDS, "head", shift_head)
    with pytest.raises(ParityError, match="nothing was written"):
        export_model(checkpoint, tmp_path / "model.onnx", radiographs)
    assert not list(tmp_path.iterdir())


def test_a_model_that_differs_from_its_checkpoint_is_not_written(
    checkpoint: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    conversion_spoilt_by: Callable[[float], None],
) -> None:
    conversion_spoilt_by(0.2)
    (tmp_path / "there.onnx").write_bytes(b"an older model")
    for name in ("there.onnx", "new.onnx"):
        with pytest.raises(ParityError, match="nothing was written"):
            export_model(checkpoint, tmp_path / name, radiographs)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_bytes() == b"an older model"


def test_a_parity_check_on_nothing_writes_no_model(
    checkpoint: Path, tmp_path: Path, conversion_spoilt_by: Callable[[float], None]
) -> None:
    conversion_spoilt_by(0.2)
    with pytest.raises((ParityError, ValueError)):
        export_model(checkpoint, tmp_path / "model.onnx", [])
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_whose_weights_are_not_numbers_is_not_exported(
    checkpoint: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    conversion_spoilt_by: Callable[[float], None],
) -> None:
    broken = tmp_path / "checkpoint"
    broken.mkdir()
    shutil.copy(checkpoint / "config.toml", broken)
    with safe_open(checkpoint / "weights.safetensors", framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(checkpoint / "weights.safetensors")
    tensors["average.generator.mask_head.2.bias"].fill_(math.nan)
    save_file(tensors, broken / "weights.safetensors", metadata)
    conversion_spoilt_by(math.nan)  # as the conversion of such weights is
    with pytest.raises((ParityError, CheckpointError)):
        export_model(broken, tmp_path / "model.onnx", radiographs)
    assert not (tmp_path / "model.onnx").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, radiographs: list[Radiograph]) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        export_model(tmp_path, tmp_path / "model.onnx", radiographs)


def test_the_command_exports_and_says_how_close_it_is(
    checkpoint: Path, tmp_path: Path, conversion_spoilt_by: Callable[[float], None]
) -> None:
    conversion_spoilt_by(0)
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"datasets": {"jsrt": {"dice": 0.97}}, "seconds": 3}))
    output = tmp_path / "model.onnx"
    run = CliRunner().invoke(main, ["export", str(checkpoint), "-o", str(output), "--measured", str(measured)])
    assert run.exit_code == 0, run.output
    assert (
        f"{output}: model, width 2, code a_self, fp32; parity on 8 images: 0 of 8192 mask pixels flipped" in run.output
    )
    assert "; folding alone flips 0" in run.output
    with Segmenter.load(output) as segmenter:
        assert segmenter.contract.measured == {"datasets": {"jsrt": {"dice": 0.97}}}


def test_folds_can_be_chosen(
    checkpoint: Path,
    radiographs: list[Radiograph],
    tmp_path: Path,
    exported: tuple[Path, Contract],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converted: list[nn.Module] = []
    model = onnx.load(exported[0])
    monkeypatch.setattr(export, "to_onnx", lambda network, size: converted.append(network) or model)
    contract = export_model(checkpoint, tmp_path / "m.onnx", radiographs, folds=["head", "up-conv"])
    assert contract.folds == ("adain", "up-conv", "head")
    kinds = [type(layer) for layer in converted[0].modules()]
    assert kinds.count(nn.ConvTranspose2d) == 4
    assert (nn.AvgPool2d in kinds, Difference in kinds) == (True, False)


def test_the_command_applies_the_named_folds(
    checkpoint: Path, tmp_path: Path, conversion_spoilt_by: Callable[[float], None]
) -> None:
    conversion_spoilt_by(0)
    output = tmp_path / "model.onnx"
    for text, folds in (("none", ["adain"]), ("shortcut,adain", ["adain", "shortcut"]), ("all", ["adain", *FOLDS])):
        run = CliRunner().invoke(main, ["export", str(checkpoint), "-o", str(output), "--folds", text])
        assert run.exit_code == 0, run.output
        assert list(read_model(output)[1].folds) == folds
    run = CliRunner().invoke(main, ["export", str(checkpoint), "-o", str(output), "--folds", "half"])
    assert run.exit_code == 2
    assert "'half' is no fold; there are all, none, adain" in run.output


def test_both_precisions_are_written_under_their_names(
    checkpoint: Path, tmp_path: Path, conversion_spoilt_by: Callable[[float], None]
) -> None:
    conversion_spoilt_by(0)
    run = CliRunner().invoke(
        main, ["export", str(checkpoint), "-o", str(tmp_path / "tiny.onnx"), "--precision", "fp16,fp32"]
    )
    assert run.exit_code == 0, run.output
    models = {path.name: read_model(path)[1] for path in tmp_path.iterdir()}
    assert {name: contract.precision for name, contract in models.items()} == {
        "tiny.onnx": "fp32",
        "tiny.fp16.onnx": "fp16",
    }
    assert models["tiny.fp16.onnx"].parity["original"] == models["tiny.onnx"].parity
    with Segmenter.load(tmp_path / "tiny.fp16.onnx") as segmenter:
        assert segmenter.contract == models["tiny.fp16.onnx"]


def test_an_fp32_model_is_not_written_under_the_name_of_an_fp16_one(checkpoint: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "x.fp16.onnx")
    run = CliRunner().invoke(main, ["export", str(checkpoint), "-o", output, "--precision", "fp32,fp16"])
    assert run.exit_code == 2
    assert "is the name of an FP16 model" in " ".join(run.output.split())
    assert not list(tmp_path.iterdir())


def test_a_model_file_is_typed_without_torch(exported: tuple[Path, Contract], tmp_path: Path) -> None:
    output = tmp_path / "typed.onnx"
    program = "import sys; sys.modules['torch'] = None; from cxredge.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", program, "export", str(exported[0]), "-o", str(output)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "typed.onnx: tiny-model, width 2, code a_self, fp16; parity on 8 images" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["typed.onnx"]
    contract = read_model(output)[1]
    assert (contract.precision, contract.folds) == (
        "fp16",
        tuple(name for name in exported[1].folds if name != "up-phases"),
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "export", str(tmp_path), "-o", str(output)], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (
        1,
        "cxredge: exporting a checkpoint needs the 'export' extra: pip install 'cxredge[export]'\n",
    )


def test_the_report_compares_the_unfolded_network_with_what_is_written(
    checkpoint: Path, tmp_path: Path, conversion_spoilt_by: Callable[[float], None]
) -> None:
    conversion_spoilt_by(0)
    arguments = ["-o", str(tmp_path / "tiny.onnx"), "--report", "--report-json", str(tmp_path / "report.json")]
    run = CliRunner().invoke(main, ["export", str(checkpoint), *arguments], terminal_width=200)
    assert run.exit_code == 0, run.output
    assert "GMAC" in run.output
    assert "unfolded" in run.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["models"]) == ["unfolded (adain only)", "tiny.onnx"]
    assert report["models"]["tiny.onnx"]["bytes"] == pytest.approx((tmp_path / "tiny.onnx").stat().st_size, abs=10)
    assert report["models"]["tiny.onnx"]["latency_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.onnx", "--precision", "int8"], "'int8' is not one of fp32, fp16"),
        (["-o", "x.onnx", "--precision", "fp32"], "can only be typed: --precision fp16"),
        (["-o", "x.onnx", "--folds", "none", "--name", "other"], "whose name, folds cannot be changed any more"),
    ],
)
def test_what_cannot_be_done_with_a_model_file_is_wrong_usage(
    exported: tuple[Path, Contract], arguments: list[str], message: str
) -> None:
    run = CliRunner().invoke(main, ["export", str(exported[0]), *arguments], terminal_width=200)
    assert run.exit_code == 2
    assert message in " ".join(run.output.split())


def test_a_model_file_that_is_missing_or_in_fp16_is_named(exported: tuple[Path, Contract], tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    run = CliRunner().invoke(main, ["export", str(missing), "-o", str(tmp_path / "x.onnx")])
    assert (run.exit_code, run.output) == (1, f"cxredge: {missing}: there is no such model file\n")
    typed = tmp_path / "typed.fp16.onnx"
    write_model(to_fp16(read_model(exported[0])[0]), typed)
    run = CliRunner().invoke(main, ["export", str(typed), "-o", str(tmp_path / "x.onnx")])
    assert run.exit_code == 1
    assert run.output.startswith(f"cxredge: {typed}: tiny-model is in FP16 already")


def test_mistakes_on_the_command_line_are_one_clear_line(checkpoint: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "model.onnx")
    run = CliRunner().invoke(main, ["export", str(tmp_path), "-o", output])
    assert (run.exit_code, run.output) == (1, f"cxredge: {tmp_path}: is not a checkpoint (no config.toml)\n")
    (tmp_path / "figures.json").write_text("{}")
    run = CliRunner().invoke(
        main, ["export", str(checkpoint), "-o", output, "--measured", str(tmp_path / "figures.json")]
    )
    assert run.exit_code == 1
    assert "figures.json: is not a file of 'cxredge evaluate --json'" in run.output
    assert not Path(output).exists()
