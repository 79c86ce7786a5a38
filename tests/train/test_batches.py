"""Batches: which rows an iteration gets, at which size, which never train, and that masks belong to their images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cxredge.errors import ConfigError, DatasetError
from cxredge_train.batches import TrainingData, input_size, shuffled_rows
from cxredge_train.config import AugmentationConfig, DataConfig, ScheduleConfig, TrainingConfig
from cxredge_train.networks import Domain
from cxredge_train.steps import Batch
from cxredge_train.tasks import Task

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def coarse(config: TrainingConfig) -> TrainingConfig:
    """64x64 after 32x32 for the first half of each stage."""
    return replace(
        config,
        network=replace(config.network, input_size=64),
        schedule=ScheduleConfig(
            supervised=2, adaptation=4, distillation=4, batch_size=2, coarse_size=32, coarse_share=0.5
        ),
    )


@pytest.fixture(scope="module")
def two_sizes(data_root: Path, coarse: TrainingConfig) -> TrainingData:
    return TrainingData(data_root, coarse)


def batches(
    data: TrainingData, task: Task, iteration: int, rank: int = 0, ranks: int = 1, size: int = 32
) -> list[Batch]:
    return data.batches(task, iteration, size, CPU, rank, ranks)


def numbers(images: Tensor, stored: Tensor) -> list[int]:
    """Which rows of ``stored`` the images are."""
    return [int((stored == one).flatten(1).all(1).nonzero().item()) for one in images]


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_comes_once_an_epoch(count: int, batch_size: int, epochs: int, seed: int) -> None:
    iterations = -(-epochs * count // batch_size)
    order = np.concatenate([shuffled_rows(count, i * batch_size, batch_size, (seed, 0)) for i in range(iterations)])
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_position_always_gets_the_same_row() -> None:
    whole = shuffled_rows(7, 0, 60, (1, 2)).tolist()
    assert [int(shuffled_rows(7, i, 1, (1, 2))[0]) for i in reversed(range(60))] == whole[::-1]


def test_order_differs_by_seed_by_stream_and_by_epoch() -> None:
    orders = [shuffled_rows(50, first, 50, seed).tolist() for first, seed in ((0, (1, 0)), (0, (1, 1)), (0, (2, 0)))]
    orders += [shuffled_rows(50, 50, 50, (1, 0)).tolist(), list(range(50))]
    assert len({tuple(order) for order in orders}) == 5


def test_the_first_part_of_each_stage_is_coarse(coarse: TrainingConfig) -> None:
    assert [input_size(coarse, i) for i in range(10)] == [32, 64, 32, 32, 64, 64, 32, 32, 64, 64]


def test_without_a_coarse_size_every_iteration_is_of_full_size(config: TrainingConfig) -> None:
    share_alone = replace(config, schedule=replace(config.schedule, coarse_share=0.5))
    assert {input_size(share_alone, i) for i in range(8)} == {32}


@pytest.mark.parametrize("size", [32, 64])
def test_a_batch_of_segmentation_has_normalised_images_and_their_masks(two_sizes: TrainingData, size: int) -> None:
    (one,) = batches(two_sizes, Task.INTRA_TO_MASK, 0, size=size)
    assert one.images.shape == one.teacher_images.shape == one.references[0].shape == (2, 1, size, size)
    assert one.images.dtype == torch.float32
    assert one.images.abs().max() <= 1
    assert one.masks is not None
    assert one.masks.shape == (2, size, size)
    assert one.masks.dtype == torch.bool
    for image, mask in zip(one.images[:, 0], one.masks, strict=True):  # the made lungs are the dark part
        assert ((image < 0) == mask).float().mean() > 0.9


@pytest.mark.parametrize("task", Task)
def test_images_are_of_the_source_and_references_of_the_target_or_of_intra(data: TrainingData, task: Task) -> None:
    target = Domain.INTRA if task.target is Domain.MASK else task.target
    source, referred = (data.domains[domain].images[32] for domain in (task.source, target))
    for iteration in range(3):
        (one,) = batches(data, task, iteration)
        assert len(numbers(one.images, source)) == 2  # fails where one is not among them
        assert all(len(numbers(reference, referred)) == 2 for reference in one.references)
        assert (one.masks is not None) == (task.source is Domain.INTRA)


def test_an_image_and_its_two_references_are_drawn_in_different_orders(data: TrainingData) -> None:
    stored = data.domains[Domain.INTRA].images[32]
    drawn: list[list[int]] = [[], [], []]
    for iteration in range(6):
        (one,) = batches(data, Task.INTRA_TO_INTRA, iteration)
        for order, images in zip(drawn, (one.images, *one.references), strict=True):
            order += numbers(images, stored)
    assert len({tuple(order) for order in drawn}) == 3
    assert all(sorted(order) == sorted([0, 1, 2] * 4) for order in drawn)


def test_devices_and_accumulated_batches_share_out_the_rows_of_one_large_batch(
    data: TrainingData, data_root: Path, config: TrainingConfig
) -> None:
    large = TrainingData(data_root, replace(config, schedule=replace(config.schedule, batch_size=12)))
    accumulating = replace(config.schedule, batch_size=3, accumulate=2)
    small = TrainingData(data_root, replace(config, schedule=accumulating))
    for iteration in range(2):
        (whole,) = batches(large, Task.INTRA_TO_INTER, iteration)
        parts = [part for rank in range(2) for part in batches(small, Task.INTRA_TO_INTER, iteration, rank, 2)]
        assert [len(part.images) for part in parts] == [3, 3, 3, 3]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        for reference in range(2):
            assert torch.equal(torch.cat([part.references[reference] for part in parts]), whole.references[reference])


def test_training_rows_and_validation_rows_are_those_of_the_manifest(data: TrainingData) -> None:
    assert [case.name for case in data.domains[Domain.INTRA].cases] == ["train0", "train1", "train2"]
    assert [case.image.parts[-3] for case in data.domains[Domain.INTER].cases] == ["sick"] * 3
    assert [case.name for case in data.validation.cases] == ["val0", "val1"]


def test_data_sets_are_joined(tmp_path: Path, config: TrainingConfig, write_dataset: Callable[..., Path]) -> None:
    write_dataset(tmp_path / "one", [("a", "train", 0), ("b", "val", 1)])
    write_dataset(tmp_path / "two", [("a", "train", 2), ("c", "train", 3), ("d", "val", 4)])
    write_dataset(tmp_path / "three", [("a", "train", 5)], masks=False)
    write_dataset(tmp_path / "four", [("a", "train", 6), ("b", "test", 7)], masks=False)
    data = TrainingData(tmp_path, replace(config, data=DataConfig(("one", "two"), ("three", "four"))))
    found = {
        domain: [case.image.parts[-3] + "/" + case.name for case in data.domains[domain].cases]
        for domain in data.domains
    }
    assert found == {Domain.INTRA: ["one/a", "two/a", "two/c"], Domain.INTER: ["three/a", "four/a"]}
    assert len(data.validation) == 2


# Masks


def test_masks_are_thresholded_at_the_middle_and_keep_their_area(data_root: Path, config: TrainingConfig) -> None:
    intra = TrainingData(data_root, replace(config, network=replace(config.network, input_size=48))).domains[
        Domain.INTRA
    ]
    for case, mask in zip(intra.cases, intra.masks[48], strict=True):
        stored = cv2.imread(str(case.mask), cv2.IMREAD_GRAYSCALE)
        area = (stored > 0).mean()
        truncated = (cv2.resize(stored, (48, 48), interpolation=cv2.INTER_AREA) // 255).mean()
        assert mask.float().mean().item() == pytest.approx(area, rel=0.02)
        assert truncated < 0.92 * area  # what the release loses


# Augmentation


@pytest.mark.parametrize("clean", [False, True])
def test_what_is_segmented_is_augmented_and_the_teacher_can_see_it_clean(
    data: TrainingData, data_root: Path, config: TrainingConfig, clean: bool
) -> None:
    augmentation = AugmentationConfig(enabled=True, noise=0.4, clean_teacher=clean)
    augmented = TrainingData(data_root, replace(config, augmentation=augmentation))
    for task in (Task.INTRA_TO_MASK, Task.INTER_TO_MASK):
        torch.manual_seed(0)
        (one,), (plain,) = (batches(each, task, 0) for each in (augmented, data))
        assert not torch.equal(one.images, plain.images)
        assert torch.equal(one.images, one.teacher_images) is not clean
        assert torch.equal(one.references[0], plain.references[0])
        if task is Task.INTRA_TO_MASK:
            assert one.masks is not None
            assert not torch.equal(one.masks, plain.masks)
            for image, mask in zip(one.teacher_images[:, 0], one.masks, strict=True):
                assert image[mask].mean() < image[~mask].mean() or not clean
    for task in (task for task in Task if task.adapts):
        (one,), (plain,) = (batches(each, task, 0) for each in (augmented, data))
        assert torch.equal(one.images, plain.images)
        assert torch.equal(one.teacher_images, plain.images)


# What is refused


def test_missing_data_are_named(tmp_path: Path, supervised: TrainingConfig, write_dataset: Callable[..., Path]) -> None:
    alone = replace(supervised, data=DataConfig(("lungs",), ()))
    with pytest.raises(DatasetError, match="lungs"):
        TrainingData(tmp_path, alone)
    write_dataset(tmp_path / "lungs", [("a", "train", 0)])
    with pytest.raises(DatasetError, match=r"lungs: no rows of split val"):
        TrainingData(tmp_path, alone)


def test_adaptation_without_an_inter_data_set_is_refused_and_segmentation_needs_none(
    data_root: Path, config: TrainingConfig, supervised: TrainingConfig
) -> None:
    alone = DataConfig(("lungs",), ())
    with pytest.raises(ConfigError, match=r"data\.inter"):
        TrainingData(data_root, replace(config, data=alone))
    assert set(TrainingData(data_root, replace(supervised, data=alone)).domains) == {Domain.INTRA}


def test_a_training_row_without_a_mask_is_named(
    tmp_path: Path, supervised: TrainingConfig, write_dataset: Callable[..., Path]
) -> None:
    write_dataset(tmp_path / "lungs", [("a", "train", 0), ("b", "val", 1)])
    (tmp_path / "lungs" / "masks" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: has no mask"):
        TrainingData(tmp_path, replace(supervised, data=DataConfig(("lungs",), ())))


@pytest.fixture
def leaking(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    """A data root whose training row sick/copy is the validation row lungs/b."""
    write_dataset(tmp_path / "lungs", [("a", "train", 0), ("b", "val", 1)])
    write_dataset(tmp_path / "sick", [("copy", "train", 2), ("other", "train", 3)], masks=False)
    shutil.copy(tmp_path / "lungs" / "images" / "b.png", tmp_path / "sick" / "images" / "copy.png")
    return tmp_path


def test_a_training_image_that_is_a_held_out_image_is_refused_by_name(leaking: Path, config: TrainingConfig) -> None:
    with pytest.raises(DatasetError, match=r"sick/copy \(train\) = lungs/b \(val\)"):
        TrainingData(leaking, config)


def test_the_row_can_be_left_out(leaking: Path, config: TrainingConfig) -> None:
    data = TrainingData(leaking, replace(config, data=replace(config.data, leave_out=("sick/copy",))))
    assert [case.name for case in data.domains[Domain.INTER].cases] == ["other"]
    assert data.left_out == 1
    with pytest.raises(DatasetError, match="'sick/nobody' is not among the rows"):
        TrainingData(leaking, replace(config, data=replace(config.data, leave_out=("sick/nobody",))))


def test_training_rows_of_patients_of_held_out_rows_are_left_out(
    tmp_path: Path, config: TrainingConfig, write_dataset: Callable[..., Path]
) -> None:
    rows = [("a", "train", 0), ("b", "train", 1), ("c", "val", 2), ("d", "train", 3)]
    write_dataset(tmp_path / "lungs", rows, patients=["7", "8", "8", ""])
    write_dataset(tmp_path / "sick", [("a", "train", 4), ("b", "test", 5)], masks=False, patients=["8", "7"])
    data = TrainingData(tmp_path, config)
    assert [case.name for case in data.domains[Domain.INTRA].cases] == ["a", "d"]
    assert [case.name for case in data.domains[Domain.INTER].cases] == ["a"]  # patient 8 of another hospital
    assert data.left_out == 1


def test_the_content_hash_follows_the_manifests(
    tmp_path: Path, supervised: TrainingConfig, write_dataset: Callable[..., Path]
) -> None:
    alone = replace(supervised, data=DataConfig(("lungs",), ()))
    write_dataset(tmp_path / "lungs", [("a", "train", 0), ("b", "val", 1)])
    first = TrainingData(tmp_path, alone).content_hash()
    assert TrainingData(tmp_path, alone).content_hash() == first
    manifest = tmp_path / "lungs" / "manifest.csv"
    manifest.write_text(manifest.read_text() + "b2,test,\n")
    shutil.copy(tmp_path / "lungs" / "images" / "b.png", tmp_path / "lungs" / "images" / "b2.png")
    assert TrainingData(tmp_path, alone).content_hash() != first
