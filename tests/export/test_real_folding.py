"""Folding flips no mask pixel of real radiographs, in PyTorch and from checkpoint to ONNX Runtime."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from cxredge.evaluation.parity_set import parity_radiographs
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_contract
from cxredge_export.export import make_model
from cxredge_export.folding import FOLDS, fold, fold_code
from cxredge_train.networks import Generator, a_seg

pytestmark = pytest.mark.data

IMAGES = 16


@pytest.fixture(scope="module")
def jsrt(data_root: Path) -> list[Radiograph]:
    """The first test rows of JSRT."""
    return parity_radiographs((data_root / "jsrt",))[:IMAGES]


@torch.no_grad()
def test_the_folded_network_gives_the_masks_of_the_unfolded_one(generator: Generator, jsrt: list[Radiograph]) -> None:
    precise = copy.deepcopy(generator).double()
    folded = fold(fold_code(precise, None), FOLDS)
    for radiograph in jsrt:
        image = torch.from_numpy(network_input(radiograph, 256))[None, None].double()
        logits = precise(image, a_seg())
        assert torch.equal(folded(image) > 0, logits[:, 1:] > logits[:, :1])


def test_an_exported_checkpoint_gives_the_masks_of_its_unfolded_network(
    checkpoint: Path, jsrt: list[Radiograph]
) -> None:
    contract = read_contract(make_model(checkpoint, jsrt, name="tiny"))
    assert contract.folds == ("adain", *FOLDS)
    assert (contract.parity["images"], contract.parity["flipped_pixels"]) == (IMAGES, 0)
    assert contract.parity["folding"]["flipped_pixels"] == 0
