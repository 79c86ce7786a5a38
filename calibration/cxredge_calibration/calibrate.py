"""From an FP32 model and radiographs to an INT8 model that passed the gate, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx

from cxredge.contract import Contract
from cxredge.errors import CalibrationError, ModelError, OutputError
from cxredge.pipeline import available_cores
from cxredge_calibration.choice import Choice, choose_samples, with_shifted_copies
from cxredge_calibration.gate import GateFigures, Reference, make_references, measure
from cxredge_calibration.layers import Layer, find_layers, prepare_graph
from cxredge_calibration.model_file import add_contract, read_contract, read_model, write_model
from cxredge_calibration.options import Options, Progress, silent
from cxredge_calibration.phases import merge_phases
from cxredge_calibration.quantisation import quantise
from cxredge_calibration.ranges import RangeTable, estimate_ranges, kept_or_estimated, table_key
from cxredge_calibration.report import CalibrationReport, require_drawing, write_report
from cxredge_calibration.search import Trial, leave_layers_out
from cxredge_calibration.sensitivity import Sensitivity, measure_sensitivity
from cxredge_calibration.simulation import open_session


@dataclass(frozen=True)
class Subject:
    """What is calibrated, and how.

    Attributes:
        path: of the FP32 model.
        contract: of the FP32 model.
        graph: prepared for quantisation.
        layers: that may be quantised.
        options: of the calibration.
        threads: CPU threads of one inference.
        progress: called as it goes.
    """

    path: Path
    contract: Contract
    graph: onnx.ModelProto
    layers: tuple[Layer, ...]
    options: Options
    threads: int
    progress: Progress


def calibrate_model(
    model_path: Path,
    samples: Sequence[Path],
    output: Path,
    *,
    options: Options | None = None,
    progress: Progress = silent,
) -> CalibrationReport:
    """Quantise a model to INT8 with ranges from ``samples``, and write it if it passes the gate.

    Written are the table of ranges, the report (also when the gate refuses) and last the model: explicit
    Q/DQ in the big convolutions, all else in FP32, with the contract carried along.

    Args:
        model_path: an FP32 model file with its contract.
        samples: data set folders, of which only training rows are used, folders of radiographs, and files.
        output: model file to write, by custom ``NAME.int8.onnx``.
        options: how; ``None`` for the defaults.
        progress: called as it goes, with the name of the stage (``reading``, ``ranges``, ``sensitivity``,
            ``gate``), what is done of it and what there is to do.

    Returns:
        What was found; its ``passed`` is true.

    Raises:
        ModelError: the model cannot be read, or has an opset that cannot be converted.
        DatasetError: a data set is inconsistent, has no training rows, or has a file that cannot be read.
        CalibrationError: not an FP32 model; too few samples, or no chest radiographs; or the gate refuses.
            The model is not written then, and a file that ``output`` names stays as it is.
        OutputError: a file cannot be written.
        MissingExtraError: matplotlib is missing.
    """
    options = options or Options()
    require_drawing()
    if output.resolve() == model_path.resolve():
        raise OutputError(f"{output}: is the model itself; name another file for the INT8 model")
    ranges_file, json_file, png_file = options.files(output)
    subject = read_subject(model_path, options, progress)
    session = open_session(subject.graph, subject.threads)
    choice = choose_samples(
        samples, session, subject.contract.input_size, options.count, options.seed, partial(progress, "reading")
    )
    table, kept = find_ranges(subject, choice, ranges_file)
    references = tuple(make_references(session, choice.held_back))
    sensitivities, trials = pass_gate(subject, table, references)
    report = CalibrationReport(model_path, options, choice, table, kept, subject.layers, sensitivities, trials)
    write_report(report, json_file, png_file)
    if not report.passed:
        raise CalibrationError(f"{model_path}: {report.refusal()}. {output} was not written; {json_file} says more")
    quantised = quantise(subject.graph, report.quantised, table.bounds())
    add_contract(quantised, int8_contract(subject.contract, report))
    write_model(quantised, output)
    return report


def read_subject(path: Path, options: Options, progress: Progress) -> Subject:
    """Read an FP32 model and find the layers that may be quantised.

    Raises:
        ModelError: it cannot be read or converted.
        CalibrationError: it is not in FP32, or there is nothing to quantise.
    """
    model = merge_phases(read_model(path)[0])
    contract = read_contract(model)
    try:
        graph = prepare_graph(model, contract)
        layers = find_layers(graph)
    except (ModelError, CalibrationError) as error:
        raise type(error)(f"{path}: {error}") from error
    return Subject(path, contract, graph, layers, options, options.threads or available_cores(), progress)


def find_ranges(subject: Subject, choice: Choice, file: Path) -> tuple[RangeTable, bool]:
    """Ranges over the calibration samples and their shifted copies, and whether they were in ``file`` already."""
    names, inputs = with_shifted_copies(choice.calibration)
    method = subject.options.method
    key = table_key(subject.path.read_bytes(), [sample.sha256 for sample in choice.calibration], inputs, method)
    estimate = partial(
        estimate_ranges,
        subject.graph,
        subject.layers,
        inputs,
        names,
        method,
        subject.threads,
        partial(subject.progress, "ranges"),
    )
    return kept_or_estimated(file, key, {layer.source for layer in subject.layers}, estimate)


def pass_gate(
    subject: Subject, table: RangeTable, references: Sequence[Reference]
) -> tuple[tuple[Sensitivity, ...], tuple[Trial, ...]]:
    """Each layer's sensitivity, the most sensitive first, and the trials of leaving such layers in floating point."""
    bounds, options, progress = table.bounds(), subject.options, subject.progress

    def figures(layers: Sequence[Layer]) -> GateFigures:
        session = open_session(quantise(subject.graph, layers, bounds), subject.threads)
        limit = options.max_drop if len(layers) < len(subject.layers) else float("inf")
        return measure(session, references, limit)

    sensitivities = measure_sensitivity(
        subject.graph, subject.layers, bounds, references, subject.threads, partial(progress, "sensitivity")
    )
    trials = leave_layers_out(
        [one.layer for one in sensitivities],
        figures,
        options.max_drop,
        options.least_quantised,
        partial(progress, "gate"),
    )
    return sensitivities, trials


def int8_contract(contract: Contract, report: CalibrationReport) -> Contract:
    """The INT8 model's contract; figures that were measured on the FP32 model stand in the calibration's record."""
    before = {"measured": contract.measured, "parity": contract.parity}
    return replace(contract, precision="int8", calibration={**report.record(), "fp32": before}, measured={}, parity={})
