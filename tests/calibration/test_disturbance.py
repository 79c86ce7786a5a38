"""Shifted copies are network inputs of their own, mild and the same every time."""

from __future__ import annotations

import numpy as np

from cxredge.evaluation.shift import shifted
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.disturbance import disturbed

RADIOGRAPH = Radiograph(make_radiograph(1, 128, 128).pixels)
PIXELS = network_input(RADIOGRAPH, 64)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_a_copy_spans_the_range_of_a_network_input():
    copy = disturbed(PIXELS, "a")
    assert copy.shape == PIXELS.shape
    assert copy.dtype == np.float32
    assert copy.min() == -1
    assert copy.max() == 1


def test_copies_are_drawn_by_name():
    assert np.array_equal(disturbed(PIXELS, "a"), disturbed(PIXELS, "a"))
    assert not np.array_equal(disturbed(PIXELS, "a"), disturbed(PIXELS, "b"))


def test_copies_differ_from_the_sample_but_less_than_under_the_evaluations_shift():
    ours = [likeness(disturbed(PIXELS, f"n{i}"), PIXELS) for i in range(10)]
    theirs = [likeness(network_input(shifted(RADIOGRAPH, "weak", f"n{i}", 64), 64), PIXELS) for i in range(10)]
    assert max(ours) < 0.99999
    assert np.mean(ours) > 0.97 > np.mean(theirs)
