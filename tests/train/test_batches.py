"""Batches: which rows an iteration gets, at which size, and that images and masks belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxredge.errors import DatasetError
from cxredge_train.batches import TrainingData, input_size, shuffled_rows
from cxredge_train.config import DataConfig, ScheduleConfig, TrainingConfig


@pytest.fixture(scope="module")
def coarse(config: TrainingConfig) -> TrainingConfig:
    """64x64 after 32x32 for the first half of ten iterations."""
    return replace(
        config,
        network=replace(config.network, input_size=64),
        schedule=ScheduleConfig(iterations=10, batch_size=2, coarse_size=32, coarse_share=0.5),
    )


@pytest.fixture(scope="module")
def data(data_root: Path, coarse: TrainingConfig) -> TrainingData:
    return TrainingData(data_root, coarse)


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_comes_once_an_epoch(count: int, batch_size: int, epochs: int, seed: int) -> None:
    iterations = -(-epochs * count // batch_size)
    order = np.concatenate([shuffled_rows(count, i, batch_size, seed) for i in range(iterations)])
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_an_iteration_always_gets_the_same_rows() -> None:
    first = [shuffled_rows(7, i, 3, 1).tolist() for i in range(20)]
    assert [shuffled_rows(7, i, 3, 1).tolist() for i in reversed(range(20))] == first[::-1]


def test_order_differs_by_seed_and_by_epoch() -> None:
    def epoch(number: int, seed: int) -> list[int]:
        return shuffled_rows(50, number, 50, seed).tolist()

    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(0, 1) != epoch(1, 1)
    assert epoch(0, 1) != list(range(50))


def test_the_first_part_of_a_run_is_coarse(coarse: TrainingConfig) -> None:
    assert [input_size(coarse, i) for i in range(10)] == [32] * 5 + [64] * 5


def test_without_a_coarse_size_every_iteration_is_of_full_size(config: TrainingConfig) -> None:
    share_alone = replace(config, schedule=replace(config.schedule, coarse_share=0.5))
    assert {input_size(share_alone, i) for i in range(6)} == {32}


@pytest.mark.parametrize("size", [32, 64])
def test_a_batch_has_normalised_images_and_their_masks(data: TrainingData, size: int) -> None:
    images, masks = data.batch(0, size)
    assert images.shape == (2, 1, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert masks.shape == (2, size, size)
    assert masks.dtype == torch.bool
    for image, mask in zip(images[:, 0], masks, strict=True):  # the made lungs are the dark part
        assert ((image < 0) == mask).float().mean() > 0.9


def test_training_rows_and_validation_rows_are_those_of_the_manifest(data: TrainingData) -> None:
    assert [case.name for case in data.train.cases] == ["train0", "train1", "train2"]
    assert [case.name for case in data.validation.cases] == ["val0", "val1", "val2"]


def test_an_epoch_of_batches_holds_every_training_image(data: TrainingData) -> None:
    drawn = torch.cat([data.batch(i, 32)[0] for i in range(3)])[:3]
    stored = data.train.images[32]
    assert sorted(int((stored == one).flatten(1).all(1).nonzero().item()) for one in drawn) == [0, 1, 2]


def test_data_sets_are_joined(tmp_path: Path, config: TrainingConfig, write_dataset: Callable[..., Path]) -> None:
    write_dataset(tmp_path / "one", [("a", "train", 0), ("b", "val", 1)])
    write_dataset(tmp_path / "two", [("a", "train", 2), ("c", "train", 3), ("d", "val", 4)])
    data = TrainingData(tmp_path, replace(config, data=DataConfig(("one", "two"), ())))
    assert [case.image.parts[-3:] for case in data.train.cases] == [
        ("one", "images", "a.png"),
        ("two", "images", "a.png"),
        ("two", "images", "c.png"),
    ]
    assert len(data.validation) == 2


def test_missing_data_are_named(tmp_path: Path, config: TrainingConfig, write_dataset: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match="lungs"):
        TrainingData(tmp_path, config)
    write_dataset(tmp_path / "lungs", [("a", "train", 0)])
    with pytest.raises(DatasetError, match=r"lungs: no rows of split val"):
        TrainingData(tmp_path, config)


def test_a_training_row_without_a_mask_is_named(
    tmp_path: Path, config: TrainingConfig, write_dataset: Callable[..., Path]
) -> None:
    write_dataset(tmp_path / "lungs", [("a", "train", 0), ("b", "val", 1)])
    (tmp_path / "lungs" / "masks" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: has no mask"):
        TrainingData(tmp_path, config)


def test_the_content_hash_follows_the_manifests(
    tmp_path: Path, config: TrainingConfig, write_dataset: Callable[..., Path]
) -> None:
    write_dataset(tmp_path / "lungs", [("a", "train", 0), ("b", "val", 1)])
    first = TrainingData(tmp_path, config).content_hash()
    assert TrainingData(tmp_path, config).content_hash() == first
    manifest = tmp_path / "lungs" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("b,val", "b,val\na2,test").replace("a2", "b2"))
    (tmp_path / "lungs" / "images" / "b2.png").write_bytes((tmp_path / "lungs" / "images" / "b.png").read_bytes())
    assert TrainingData(tmp_path, config).content_hash() != first
