"""A layer's sensitivity is what it alone does in INT8."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cxredge_calibration.gate import make_references
from cxredge_calibration.options import silent
from cxredge_calibration.ranges import estimate_ranges
from cxredge_calibration.samples import find_sources, read_samples
from cxredge_calibration.sensitivity import measure_sensitivity, signal_to_noise, spread
from cxredge_calibration.simulation import open_session


@pytest.fixture
def references(graph, dataset):
    return list(make_references(open_session(graph, 1), list(read_samples(find_sources([dataset]), 64))[:4]))


@pytest.fixture
def bounds(graph, layers, references):
    inputs = [one.input for one in references]
    found = estimate_ranges(graph, layers, inputs, [one.name for one in references], "minmax", 1, silent)
    return {name: (one.low, one.high) for name, one in found.items()}


def test_signal_to_noise_is_in_decibels():
    signal = [np.full(10, 10, np.float32), np.full(10, -10, np.float32)]
    assert signal_to_noise(signal, [one + 1 for one in signal]) == pytest.approx(20)
    assert math.isinf(signal_to_noise(signal, signal))


def test_layers_with_good_ranges_are_hardly_sensitive(graph, layers, bounds, references):
    found = measure_sensitivity(graph, layers, bounds, references, 1, silent)
    assert {one.layer.name for one in found} == {"plain", "down", "deep", "up"}
    assert all(one.sqnr_db > 30 and one.disagreement < 0.02 for one in found)


@pytest.mark.parametrize("name", ["plain", "down", "deep", "up"])
def test_a_layer_with_a_spoilt_range_is_the_most_sensitive(name, graph, layers, bounds, references):
    (spoilt,) = (layer for layer in layers if layer.name == name)
    low, high = bounds[spoilt.source]
    spoilt_bounds = {**bounds, spoilt.source: (100 * low, 100 * high)}
    first, *others = measure_sensitivity(graph, layers, spoilt_bounds, references, 1, silent)
    assert first.layer == spoilt
    assert first.sqnr_db < 10 < min(one.sqnr_db for one in others)
    assert first.disagreement > max(one.disagreement for one in others)
    assert first.dice_drop is not None


def test_images_are_spread_over_all(references):
    assert [one.name for one in spread(references, 3)] == [references[i].name for i in (0, 3, 7)]
    assert spread(references[:2], 8) == references[:2]
