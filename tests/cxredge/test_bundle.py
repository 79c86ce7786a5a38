"""The model that comes with the wheel."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cxredge
from cxredge import Segmenter
from cxredge.errors import ModelError
from cxredge.evaluation.scoring import dice
from cxredge.phantom import make_radiograph

MEGABYTE = 1 << 20


def test_bundled_model_is_one_small_file() -> None:
    path = cxredge.bundled_model()
    assert path.is_file()
    assert path.stat().st_size < 12 * MEGABYTE


def test_bundled_model_comes_with_its_card() -> None:
    card = cxredge.bundled_model().with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    assert "research" in card.lower()


def test_bundled_model_is_the_default_and_its_contract_is_complete() -> None:
    with Segmenter.load() as segmenter:
        contract = segmenter.contract
    assert contract.width == 16
    assert contract.input_size == 256
    assert contract.licence
    assert contract.provenance
    assert contract.measured
    assert contract.parity["flipped_pixels"] == 0


def test_bundled_model_finds_both_lungs_of_a_made_radiograph() -> None:
    made = make_radiograph(1, 400, 360)
    with Segmenter.load() as segmenter:
        result = segmenter(made.pixels)
    assert result.flags == ()
    assert dice(result.mask, made.lungs) > 0.8


def test_an_installation_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxredge.bundle.BUNDLED_MODEL", "not-there.onnx")
    with pytest.raises(ModelError, match=r"not-there\.onnx: the bundled model is missing; reinstall cxredge"):
        Segmenter.load()


def test_the_package_runs_as_a_program() -> None:
    told = subprocess.run([sys.executable, "-m", "cxredge", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("cxredge")
    assert cxredge.__version__ in told.stdout
