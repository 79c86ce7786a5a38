"""With its processing inside, a model gives cxredge's masks from raw pixels, and NVIDIA's compiler takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from cxredge import Segmenter
from cxredge.bundle import bundled_model
from cxredge.cli import main
from cxredge.data.dataset import open_dataset
from cxredge.errors import ModelError, ParityError
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import resize
from cxredge.radiograph import Radiograph, read_radiograph
from cxredge_calibration.model_file import add_contract, read_contract, read_model, write_model
from cxredge_export.processing import add_processing
from cxredge_export.processing_parity import (
    ProcessingParity,
    Whole,
    compared_processing,
    measure_processing,
    raw_image,
    require_processing_parity,
    whole_in_onnxruntime,
)

SHAPES = ((32, 32), (33, 400), (255, 257), (512, 512), (700, 90), (1000, 1300))
LARGEST_DIFFERENCE = 1e-4


@pytest.fixture(scope="module")
def bare() -> onnx.ModelProto:
    return read_model(bundled_model())[0]


@pytest.fixture(scope="module")
def whole_model(bare: onnx.ModelProto) -> onnx.ModelProto:
    return compared_processing(bare, [Radiograph(make_radiograph(1, 300, 200).pixels)])


@pytest.fixture(scope="module")
def whole(whole_model: onnx.ModelProto) -> Whole:
    return whole_in_onnxruntime(whole_model)


def identity(size: int) -> onnx.ModelProto:
    """A network whose logits are its input."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
        same (float[N, 1, {size}, {size}] radiograph) => (float[N, 1, {size}, {size}] logit)
        {{ logit = Identity (radiograph) }}"""
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_size_and_polarity_gives_the_runtime_s_mask(
    shape: tuple[int, int], whole: Whole, bare: onnx.ModelProto
) -> None:
    pixels = make_radiograph(7, *shape).pixels
    both = [Radiograph(pixels), Radiograph(pixels.astype(np.int32) - 70_000, "MONOCHROME1")]
    parity = measure_processing(whole, bare, both)
    assert parity.flipped_pixels <= 1
    assert parity.max_abs_difference < LARGEST_DIFFERENCE


@pytest.mark.parametrize("size", [16, 100, 256])
def test_resizing_is_opencv_s(size: int) -> None:
    run = whole_in_onnxruntime(add_processing(identity(size)))
    for height, width in ((40, 33), (64, 100), (255, 611), (512, 32), (1024, 1024)):
        image = np.random.default_rng(height).integers(0, 1 << 16, (height, width)).astype(np.float32)
        low, high = image.min(), image.max()
        wanted = resize(image - low, size) * np.float32(2 / (high - low)) - 1
        np.testing.assert_allclose(run(image)[1], wanted, atol=3e-6)


def test_a_value_range_is_clipped_beforehand(whole: Whole, bare: onnx.ModelProto) -> None:
    pixels = make_radiograph(2, 300, 280).pixels
    low, high = np.quantile(pixels, (0.02, 0.97))
    pixels[:20] = 60_000  # a border that must not count
    parity = measure_processing(whole, bare, [Radiograph(pixels, value_range=(float(low), float(high)))])
    assert parity.flipped_pixels <= 1


def test_an_image_of_one_value_gives_an_empty_mask_and_no_logits(whole: Whole) -> None:
    mask, logits = whole(np.full((64, 80), 7, np.float32))
    assert not mask.any()
    assert np.isnan(logits).all()


def test_mask_is_zero_and_one_at_the_image_s_size(whole: Whole) -> None:
    mask, logits = whole(raw_image(Radiograph(make_radiograph(1, 90, 130).pixels)))
    assert (mask.shape, mask.dtype, set(np.unique(mask))) == ((90, 130), np.uint8, {0, 1})
    assert (logits.shape, logits.dtype) == ((256, 256), np.float32)


def test_the_contract_travels_and_tells_the_ends(whole_model: onnx.ModelProto, bare: onnx.ModelProto) -> None:
    contract = read_contract(whole_model, with_processing=True)
    assert replace(contract, processing=None) == read_contract(bare)
    assert contract.processing is not None
    assert {"image", "mask", "logits", "left to the caller", "parity"} == set(contract.processing)
    assert contract.processing["parity"]["images"] == 1


def test_another_operator_set_is_refused() -> None:
    model = identity(32)
    model.opset_import[0].version = 13
    with pytest.raises(ModelError, match="operator set 13"):
        add_processing(model)


def test_no_file_that_differs_passes() -> None:
    far = ProcessingParity(1, 0.0, 1_000_000, 2, 0)
    with pytest.raises(ParityError, match="2 of 1000000"):
        require_processing_parity(far, "fp32")
    require_processing_parity(far, "fp16")
    with pytest.raises(ParityError, match="nan"):
        require_processing_parity(replace(far, max_abs_difference=float("nan")), "int8")


def test_export_writes_it_from_the_bundled_model_and_backends_refuse_it(tmp_path: Path) -> None:
    image, model = tmp_path / "chest.png", tmp_path / "whole.onnx"
    assert CliRunner().invoke(main, ["sample", str(tmp_path / "made")]).exit_code == 0
    images = ["--parity-images", str(tmp_path / "made" / "made-1.png")]
    run = CliRunner().invoke(main, ["export", "bundled", "--with-processing", "-o", str(model), *images])
    assert run.exit_code == 0, run.output
    assert "processing inside, on 1 images: 0 of 1048576" in run.output
    assert CliRunner().invoke(main, ["inspect", str(model)]).exit_code == 0
    with pytest.raises(ModelError, match="processing inside"):
        Segmenter.load(model)
    run = CliRunner().invoke(main, ["export", "bundled", "--with-processing", "--report", "-o", str(image)])
    assert run.exit_code == 2
    assert "--report" in run.output


def test_a_model_of_calibrate_has_no_parity_of_its_own_and_gets_its_processing(tmp_path: Path) -> None:
    given, image, whole = tmp_path / "given.onnx", tmp_path / "chest.npy", tmp_path / "whole.onnx"
    model, contract = read_model(bundled_model())
    add_contract(model, replace(contract, precision="int8", parity={}, measured={}))
    write_model(model, given)
    np.save(image, make_radiograph(2, 260, 300).pixels)
    arguments = ["export", str(given), "--with-processing", "-o", str(whole), "--parity-images", str(image)]
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0, run.output
    assert "int8; compared with FP32 by its calibration" in run.output
    assert "processing inside, on 1 images: 0 of 78000" in run.output


def test_tensorrt_rtx_compiles_it_for_images_of_any_size(whole_model: onnx.ModelProto) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra 'rtx'")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(whole_model.SerializeToString())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("image", (32, 32), (2000, 2000), (5000, 5000))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 1_000_000
    assert network.get_output(0).dtype == trt.uint8


@pytest.mark.data
@pytest.mark.slow
def test_real_radiographs_give_the_runtime_s_masks(whole: Whole, bare: onnx.ModelProto, data_root: Path) -> None:
    scans = [read_radiograph(path) for path in sorted((data_root / "scans").iterdir())]
    tests = [read_radiograph(case.image) for case in open_dataset(data_root / "jsrt").split("test")]
    parity = measure_processing(whole, bare, scans + tests)
    assert parity.flipped_pixels <= 1e-6 * parity.pixels
