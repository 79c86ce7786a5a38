"""Ranges are those of the tensors, and a kept table serves only what it was made of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cxredge.errors import CalibrationError
from cxredge_calibration import ranges
from cxredge_calibration.options import METHODS, silent
from cxredge_calibration.ranges import Range, estimate_ranges, kept_or_estimated, read_table, table_key
from cxredge_calibration.simulation import open_session, run, with_outputs

FINE = {"t": Range(-1.0, 2.0, 2.0, "a", 1.5)}


@pytest.fixture
def inputs():
    draw = np.random.default_rng(5)
    return [draw.uniform(-1, 1, (64, 64)).astype(np.float32) for _ in range(4)]


def estimate(graph, layers, inputs, method):
    return estimate_ranges(graph, layers, inputs, list("abcd"), method, 1, silent)


def test_minmax_gives_the_extremes_of_each_tensor(graph, layers, inputs):
    found = estimate(graph, layers, inputs, "minmax")
    session = open_session(with_outputs(graph, ["p_"]), 1)
    values = np.stack([run(session, pixels)[1] for pixels in inputs])
    assert set(found) == {"s_", "p_", "d_", "e_"}
    assert (found["p_"].low, found["p_"].high) == (values.min(), values.max())
    assert found["p_"].peak == np.abs(values).max()
    assert found["p_"].peak_input == "abcd"[np.abs(values).max(axis=(1, 2, 3, 4)).argmax()]


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_histogram_methods_stay_within_the_extremes_and_cut_rare_values(graph, layers, inputs, method, monkeypatch):
    monkeypatch.setattr(ranges, "PERCENTILE", 99.9)
    inputs[2][10, 10] = 1000  # one pixel of 16 384
    found, extremes = (estimate(graph, layers, inputs, one)["s_"] for one in (method, "minmax"))
    assert extremes.low == pytest.approx(-200.04)
    assert extremes.low * 0.5 < found.low < -0.5
    assert 0.7 < found.high <= extremes.high
    assert found.peak == extremes.peak


def test_percentile_of_ordinary_values_is_close_to_the_extremes(graph, layers, inputs):
    found, extremes = (estimate(graph, layers, inputs, one)["s_"] for one in ("percentile", "minmax"))
    assert found.high == pytest.approx(extremes.high, rel=0.01)
    assert found.low == pytest.approx(extremes.low, rel=0.01)


def test_the_input_that_stretches_a_range_is_named(graph, layers, inputs):
    inputs[1] = inputs[1] * np.float32(100)
    found = estimate(graph, layers, inputs, "minmax")
    assert {one.peak_input for one in found.values()} == {"b"}
    assert all(50 < one.peak_over_median < 200 for one in found.values())


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_not_finite_are_refused_by_name(graph, layers, inputs, method):
    inputs[3][0, 0] = np.nan
    with pytest.raises(CalibrationError, match="d: gives NaN"):
        estimate(graph, layers, inputs, method)


def test_estimating_prints_nothing(graph, layers, inputs, capsys):
    estimate(graph, layers, inputs, "entropy")
    assert capsys.readouterr().out == ""


def test_a_table_is_kept_and_used_again(tmp_path, inputs):
    key = table_key(b"model", ["1", "2"], inputs, "minmax")
    file = tmp_path / "new" / "ranges.json"
    first = kept_or_estimated(file, key, {"t"}, lambda: FINE)
    again = kept_or_estimated(file, key, {"t"}, lambda: pytest.fail("was estimated again"))
    assert first == (read_table(file), False)
    assert again == (first[0], True)
    assert json.loads(file.read_text())["ranges"]["t"]["high"] == 2.0


@pytest.mark.parametrize("changed", ["model", "samples", "order", "preprocessing", "method", "tensors"])
def test_a_table_of_something_else_is_made_anew(tmp_path, inputs, changed):
    file = tmp_path / "ranges.json"
    kept_or_estimated(file, table_key(b"model", ["1", "2"], inputs, "minmax"), {"t"}, lambda: FINE)
    other = [inputs[0] + np.float32(1e-6), *inputs[1:]]
    key = table_key(
        b"other" if changed == "model" else b"model",
        {"samples": ["1", "3"], "order": ["2", "1"]}.get(changed, ["1", "2"]),
        other if changed == "preprocessing" else inputs,
        "entropy" if changed == "method" else "minmax",
    )
    new = {"u" if changed == "tensors" else "t": replace(FINE["t"], high=3.0)}
    table, kept = kept_or_estimated(file, key, set(new), lambda: new)
    assert not kept
    assert table.ranges == new == read_table(file).ranges


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "not json",
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 1, "key": {"model": "1"}, "ranges": {}}',
        json.dumps({"format": 1, "key": dict.fromkeys(("model", "samples", "preprocessing", "method"), "x")}),
    ],
)
def test_another_file_is_not_overwritten(tmp_path, inputs, content):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(CalibrationError, match=r"mine\.json: is no table of ranges"):
        kept_or_estimated(file, table_key(b"", [], inputs, "minmax"), {"t"}, lambda: FINE)
    assert file.read_text() == content


@pytest.mark.parametrize(("low", "high"), [(1.0, -1.0), (float("nan"), 1.0), (-1.0, float("inf"))])
def test_a_range_that_is_none_is_refused(tmp_path, inputs, low, high):
    key, file = table_key(b"", [], inputs, "minmax"), tmp_path / "ranges.json"
    kept_or_estimated(file, key, {"t"}, lambda: {"t": replace(FINE["t"], low=low, high=high)})
    with pytest.raises(CalibrationError, match=r"tensor 't' has the range|(NaN|Infinity) is not a number"):
        read_table(file)
