"""The most sensitive layers are left in floating point one after another, and not too many."""

from __future__ import annotations

from cxredge_calibration.gate import GateFigures, ImageFigures
from cxredge_calibration.layers import Layer
from cxredge_calibration.options import silent
from cxredge_calibration.search import leave_layers_out

LAYERS = [Layer(name, name, f"{name}_in", f"{name}_out", macs) for name, macs in (("a", 10), ("b", 20), ("c", 70))]


def search(drops: dict[str, float], max_drop: float = 0.002, least: float = 0.5, total: int = 1):
    """Trials where the drop depends on the names of the layers in INT8."""
    asked = []

    def measure(layers):
        asked.append("".join(layer.name for layer in layers))
        return GateFigures((ImageFigures("image", 1 - drops[asked[-1]]),), total)

    return leave_layers_out(LAYERS, measure, max_drop, least, silent), asked


def test_nothing_is_left_out_where_everything_passes():
    trials, asked = search({"abc": 0.001})
    assert asked == ["abc"]
    assert trials[-1].passed
    assert trials[-1].left == ()


def test_layers_are_left_out_in_order_until_the_gate_is_passed():
    trials, asked = search({"abc": 0.02, "bc": 0.005, "c": 0.001})
    assert asked == ["abc", "bc", "c"]
    assert [trial.passed for trial in trials] == [False, False, True]
    assert [layer.name for layer in trials[-1].left] == ["a", "b"]


def test_the_floor_of_int8_work_ends_the_search():
    trials, asked = search({"abc": 0.02, "bc": 0.005, "c": 0.001}, least=0.8)
    assert asked == ["abc", "bc"]
    assert not trials[-1].passed


def test_at_least_one_layer_stays_in_int8():
    trials, asked = search({"abc": 0.02, "bc": 0.02, "c": 0.02}, least=0.0)
    assert asked == ["abc", "bc", "c"]
    assert not trials[-1].passed


def test_figures_of_a_part_of_the_images_do_not_pass():
    trials, _ = search({"abc": 0.0, "bc": 0.0, "c": 0.0}, total=2)
    assert not any(trial.passed for trial in trials)
