"""Flags of made results, each beyond its threshold alone; and that every way to segment gives the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxredge import Radiograph, Segmenter, bundled_model
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.quality.flags import basic_flags, find, is_inverted, limited_flags
from cxredge.quality.measurements import measure
from cxredge.quality.reference import LIMITED
from cxredge.radiograph import LATERAL

from ..conftest import contract_for
from .test_evidence import SIZE, logits_of, two_lungs
from .test_laterality import AT_LEFT, AT_RIGHT, BRIDGE, SHAPE, boxes
from .test_reference import made_reference


@pytest.fixture(scope="module")
def bundled() -> Any:
    with Segmenter.load(threads=1) as loaded:
        yield loaded


def upright() -> np.ndarray:
    return make_radiograph(4, 300, 300).pixels


def test_the_number_of_lungs_is_flagged_without_thresholds() -> None:
    for given, flags in (
        ((), ("no_lung",)),
        ((AT_LEFT,), ("one_lung",)),
        ((AT_LEFT, AT_RIGHT, BRIDGE), ("joined_lungs",)),
        ((AT_LEFT, AT_RIGHT), ()),
    ):
        assert basic_flags(measure(Radiograph(np.zeros(SHAPE)), boxes(*given))) == flags


@pytest.mark.parametrize("flag", [name for name in LIMITED if name != "inverted_polarity"])
def test_each_flag_is_given_beyond_its_own_threshold_only(flag: str) -> None:
    mask = two_lungs()
    image = network_input(Radiograph(upright()), SIZE)
    finding = find(image, logits_of(mask), mask, measure(Radiograph(np.zeros(mask.shape)), mask), mask.size)
    beyond = made_reference(**{flag: 1e9 if flag == "tiny_lung" else -1e9})
    assert limited_flags(finding, beyond) == (flag,)
    assert limited_flags(finding, made_reference()) == ()


def test_without_a_lung_only_the_image_is_judged() -> None:
    empty = np.zeros((SIZE, SIZE), bool)
    image = network_input(Radiograph(upright()), SIZE)
    finding = find(image, logits_of(empty), empty, measure(Radiograph(np.zeros(empty.shape)), empty), empty.size)
    all_beyond = made_reference(**{name: 1e9 if name == "tiny_lung" else -1e9 for name in LIMITED})
    assert limited_flags(finding, all_beyond) == ("not_frontal",)


def test_made_radiographs_have_no_flags(bundled: Segmenter) -> None:
    assert [bundled(make_radiograph(seed).pixels).flags for seed in range(3)] == [()] * 3


def test_an_inverted_radiograph_is_corrected_and_says_so(bundled: Segmenter) -> None:
    pixels = upright()
    expected, found = bundled(pixels), bundled(pixels.max() - pixels + pixels.min())
    assert found.flags == ("inverted_polarity",)
    assert found.radiograph.polarity == "MONOCHROME1"
    np.testing.assert_array_equal(found.mask, expected.mask)
    wrong_header = bundled(Radiograph(pixels, "MONOCHROME1"))
    assert wrong_header.flags == ("inverted_polarity",)
    assert wrong_header.radiograph.polarity == "MONOCHROME2"


def test_a_right_polarity_is_left_alone_also_under_noise(bundled: Segmenter) -> None:
    reference = bundled.contract.reference
    rng = np.random.default_rng(0)
    for seed in range(4):
        pixels = make_radiograph(seed, 256, 256).pixels + rng.normal(0, 600, (256, 256))
        assert not is_inverted(network_input(Radiograph(pixels), 256), reference)


@pytest.mark.parametrize(
    ("spoil", "flag"),
    [
        (lambda pixels: np.rot90(pixels).copy(), "not_frontal"),
        (lambda pixels: np.rot90(pixels, 2).copy(), "not_frontal"),
        (lambda pixels: pixels[75:-75, 75:-75].copy(), "touches_border"),
        (lambda pixels: np.where(np.arange(300) < 150, 0, pixels), "beyond_image"),
        (lambda pixels: pixels + np.random.default_rng(2).normal(0, 1500, pixels.shape), "out_of_distribution"),
    ],
)
def test_what_was_spoiled_is_flagged(spoil: Any, flag: str, bundled: Segmenter) -> None:
    assert flag in bundled(spoil(upright())).flags


def test_noise_alone_is_no_frontal_radiograph(bundled: Segmenter) -> None:
    assert "not_frontal" in bundled(np.random.default_rng(3).normal(0, 1, (256, 256))).flags


def test_notes_of_the_header_come_first(bundled: Segmenter) -> None:
    flags = bundled(Radiograph(np.rot90(upright()).copy(), notes=(LATERAL,))).flags
    assert flags[0] == "lateral"
    assert "not_frontal" in flags


def test_single_calls_streams_and_submissions_give_the_same_flags(bundled: Segmenter) -> None:
    pixels = upright()
    sources = [pixels, pixels.max() - pixels, np.rot90(pixels).copy(), pixels[75:-75, 75:-75].copy()]
    single = [bundled(source).flags for source in sources]
    assert len(set(single)) == 4
    assert [one.flags for one in bundled.stream(sources, batch_size=3, workers=2)] == single
    assert [bundled.submit(source).result(60).flags for source in sources] == single


def test_a_model_without_thresholds_has_the_basic_flags_and_corrects_nothing(
    tmp_path: Path, make_model: Any, chest: np.ndarray
) -> None:
    with Segmenter.load(make_model(tmp_path / "bare.onnx")) as bare:
        assert bare.contract.reference is None
        assert bare(chest).flags == ()
        assert bare(chest.max() - chest).radiograph.polarity == "MONOCHROME2"


def test_thresholds_in_the_contract_are_used(tmp_path: Path, make_model: Any, chest: np.ndarray) -> None:
    reference = made_reference(ragged=-1)
    text = contract_for(input_statistics=reference.statistics, flag_thresholds=reference.thresholds).to_json()
    with Segmenter.load(make_model(tmp_path / "strict.onnx", metadata=text)) as strict:
        assert strict(chest).flags == ("ragged",)


def test_the_bundled_model_says_what_its_thresholds_were_derived_from() -> None:
    with Segmenter.load(bundled_model(), threads=1) as loaded:
        reference = loaded.contract.reference
    assert set(reference.source["radiographs"]) == {"jsrt", "cohen", "nih"}
    assert reference.source["splits"] == ["train", "val"]
