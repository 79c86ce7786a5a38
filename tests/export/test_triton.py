"""A Triton model repository is what Triton's own schema says, and the client of ``docs/triton.md`` works with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cxredge import Segmenter, bundled_model
from cxredge.cli import main
from cxredge.contract import Contract, parse_contract
from cxredge.engine.record import EngineRecord, sidecar_path
from cxredge.errors import EngineError, ModelError, OutputError
from cxredge.libraries.onnx_runtime import onnxruntime
from cxredge.phantom import make_radiograph
from cxredge_calibration.model_file import add_contract, read_model, write_model
from cxredge_export.triton import quoted, write_repository

DOCS = Path(__file__).parents[2] / "docs" / "triton.md"
PLAN = b"a plan of TensorRT"
TINY = Contract(name="tiny", width=2, input_size=32, code="a_seg", licence='"none"\\ \u00e4', precision="int8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the bundled model."""
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(bundled_model(), folder)
    return folder


@pytest.fixture
def make_engine(tmp_path: Path) -> Any:
    """``make_engine(**record)`` writes a plan with its sidecar."""

    def make(**changes: Any) -> Path:
        fields: dict[str, Any] = {
            "model_sha256": hashlib.sha256(b"model").hexdigest(),
            "plan_sha256": hashlib.sha256(PLAN).hexdigest(),
            "plan_bytes": len(PLAN),
            "flavour": "tensorrt",
            "version": "10.3.0.26",
            "compute_capability": "8.7",
            "batches": (1, 2, 8),
            "precision": "int8",
            "contract": json.loads(TINY.to_json()),
            "created": "2026-11-25T04:00:00+00:00",
        }
        plan = tmp_path / "edge.plan"
        plan.write_bytes(PLAN)
        sidecar_path(plan).write_text(EngineRecord(**{**fields, **changes}).to_json())
        return plan

    return make


def with_contract(tmp_path: Path, **changes: Any) -> Path:
    """The bundled model with another contract."""
    model, contract = read_model(bundled_model())
    add_contract(model, replace(contract, **changes))
    write_model(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def parsed(folder: Path) -> Any:
    """``config.pbtxt`` of a model's folder by tritonclient's schema."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


# The repository


def test_it_holds_the_model_and_its_configuration_and_nothing_else(repository: Path) -> None:
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert files == {"cxredge-edge/config.pbtxt", "cxredge-edge/1/model.onnx"}
    assert (repository / "cxredge-edge/1/model.onnx").read_bytes() == bundled_model().read_bytes()


def test_a_model_file_s_configuration(repository: Path) -> None:
    config = parsed(repository / "cxredge-edge")
    session = onnxruntime.InferenceSession(str(bundled_model()), providers=["CPUExecutionProvider"])
    assert (config.name, config.backend, config.max_batch_size) == ("cxredge-edge", "onnxruntime", 16)
    for ends, found in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(end.name, list(end.dims)) for end in ends] == [(end.name, end.shape[1:]) for end in found]
        assert ends[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name["TYPE_FP32"].number == 11
        assert ends[0].data_type == 11
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 0)]
    assert [warm.batch_size for warm in config.model_warmup] == [1, 4, 16]
    assert all(warm.inputs["radiograph"].zero_data for warm in config.model_warmup)
    assert [list(warm.inputs["radiograph"].dims) for warm in config.model_warmup] == [[1, 256, 256]] * 3


def test_the_contract_travels_in_the_configuration(repository: Path) -> None:
    _, contract = read_model(bundled_model())
    assert parse_contract(parsed(repository / "cxredge-edge").parameters["cxredge"].string_value) == contract


def test_an_engine_s_configuration(make_engine: Any, tmp_path: Path) -> None:
    folder = write_repository(make_engine(), tmp_path / "repository", "edge-int8")
    assert (folder.name, (folder / "1/model.plan").read_bytes()) == ("edge-int8", PLAN)
    config = parsed(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("edge-int8", "tensorrt", 8)
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 1)]  # KIND_GPU
    assert [warm.batch_size for warm in config.model_warmup] == [1, 2, 8]
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 8]
    assert list(config.input[0].dims) == [1, 32, 32]
    assert parse_contract(config.parameters["cxredge"].string_value) == TINY
    assert "TensorRT 10.3.0.26 for compute capability 8.7" in (folder / "config.pbtxt").read_text()


def test_an_engine_for_single_radiographs_gathers_no_batches(make_engine: Any, tmp_path: Path) -> None:
    config = parsed(write_repository(make_engine(batches=(1, 1, 1)), tmp_path))
    assert (config.max_batch_size, config.HasField("dynamic_batching"), len(config.model_warmup)) == (1, False, 1)


def test_names_become_folders_that_stay_in_the_repository(tmp_path: Path) -> None:
    for wanted, given in (("../../edge 1", "edge-1"), (".hidden", "hidden"), ("a/b\\c", "a-b-c"), ("\u00e4", None)):
        if given is None:
            with pytest.raises(ModelError, match="--name"):
                write_repository(bundled_model(), tmp_path, wanted)
        else:
            assert write_repository(bundled_model(), tmp_path, wanted) == tmp_path / given


def test_strings_are_those_of_protobuf_s_text_format() -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    for text in ("plain", 'say "hello"', "back\\slash", json.dumps({"\u00e4": '\n"\\'}), "{ }", "'", "#"):
        assert text_format.Parse(f"name: {quoted(text)}", schema.ModelConfig()).name == text


# What is refused


def test_int8_model_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="INT8"):
        write_repository(with_contract(tmp_path, precision="int8"), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flavour": "tensorrt_rtx"}, "TensorRT for RTX"),
        ({"batches": (2, 4, 8)}, "no batch below 2"),
        ({"plan_sha256": "0" * 64}, "not the plan of its sidecar"),
    ],
)
def test_engines_that_triton_could_not_run_are_refused(
    changes: dict[str, Any], message: str, make_engine: Any, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=message):
        write_repository(make_engine(**changes), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_files_that_are_no_models_are_refused(tmp_path: Path, make_engine: Any) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for wrong in ("absent.onnx", "text.onnx"):
        with pytest.raises(ModelError, match=wrong):
            write_repository(tmp_path / wrong, tmp_path / "repository")
    sidecar_path(make_engine()).unlink()
    with pytest.raises(EngineError, match="sidecar"):
        write_repository(tmp_path / "edge.plan", tmp_path / "repository")


def test_a_model_that_is_there_is_not_replaced(repository: Path) -> None:
    before = sorted(path.name for path in repository.iterdir())
    with pytest.raises(OutputError, match="exists already"):
        write_repository(bundled_model(), repository)
    assert sorted(path.name for path in repository.iterdir()) == before


def test_nothing_is_left_of_one_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxredge_export.triton.shutil.copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        write_repository(bundled_model(), tmp_path)
    assert list(tmp_path.iterdir()) == []


# The command line


def test_the_command_writes_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", "bundled", "--triton", str(tmp_path), "--name", "lungs"])
    assert (result.exit_code, "tritonserver" in result.output) == (0, True)
    assert (tmp_path / "lungs/1/model.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundled", "-o", "x.onnx", "--triton", "x"], "--output"),
        (["bundled", "--precision", "fp16", "--triton", "x"], "--precision"),
        ([".", "--triton", "x"], "checkpoint"),
        (["x.onnx"], "--output"),
    ],
)
def test_options_that_do_not_go_together_are_told(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["export", *arguments])
    assert (result.exit_code, message in result.output) == (2, True)


# The client


def serve(repository: Path) -> Any:
    """A stand-in for Triton: its gRPC protocol over the models of a repository, run by ONNX Runtime."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelConfig(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelConfigResponse(config=parsed(repository / request.name))

        def ModelInfer(self, request: Any, context: Any) -> Any:
            config = parsed(repository / request.model_name)
            (given,), (wanted,) = request.inputs, config.input
            batch, *shape = given.shape
            if (given.name, given.datatype, shape) != (wanted.name, "FP32", list(wanted.dims)):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected input {given}")
            if not 1 <= batch <= config.max_batch_size:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected batch {batch}")
            inputs = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(given.shape)
            file = repository / request.model_name / "1" / "model.onnx"
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            (logits,) = session.run([config.output[0].name], {given.name: inputs})
            output = {"name": config.output[0].name, "datatype": "FP32", "shape": logits.shape}
            return service_pb2.ModelInferResponse(
                model_name=request.model_name, outputs=[output], raw_output_contents=[logits.tobytes()]
            )

    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(StandIn(), server)
    return server


@pytest.fixture
def client(repository: Path) -> Iterator[Any]:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    server = serve(repository)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as opened:
        yield opened
    server.stop(None).wait()


def test_the_client_of_the_documentation_gives_the_masks_of_the_segmenter(client: Any, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"<!-- snippet: client -->\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, str(DOCS), "exec"), names)
    with Segmenter.load(threads=1) as segmenter:
        for seed, (height, width) in enumerate([(300, 260), (200, 420)]):
            path = tmp_path / f"{seed}.png"
            Image.fromarray(make_radiograph(seed, height, width).pixels).save(path)
            mask = names["segment"](client, "cxredge-edge", path)
            np.testing.assert_array_equal(mask, segmenter(path).mask)
            assert mask.any()
