"""Augmentation moves image and mask together, keeps the range, and does only what its configuration turns on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cxredge_train.augmentation import Augmentation, add_collimation, add_noise, add_occlusion, min_max
from cxredge_train.config import AugmentationConfig

OFF = AugmentationConfig(
    enabled=True,
    rotation=0.0,
    translation=0.0,
    scale=(1.0, 1.0),
    shear=0.0,
    flip=0.0,
    gamma=(1.0, 1.0),
    opacity=0.0,
    illumination=0.0,
    equalisation=0.0,
    blur=0.0,
    noise=0.0,
    occlusion=0.0,
)
DEFAULT = AugmentationConfig(enabled=True)
GEOMETRY = {"rotation": 30.0, "translation": 0.2, "scale": (0.7, 1.3), "shear": 10.0, "flip": 0.5}
PHOTOMETRY = {
    "gamma": (2.0, 2.0),
    "opacity": 1.0,
    "illumination": 1.0,
    "equalisation": 1.0,
    "blur": 1.0,
    "noise": 0.3,
    "occlusion": 1.0,
}


def ellipses(count: int = 4, size: int = 64) -> Tensor:
    """Masks ``(N, size, size)`` bool of a lopsided pair of ellipses."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    left = ((x + 0.4) / 0.25) ** 2 + (y / 0.5) ** 2 < 1
    right = ((x - 0.35) / 0.2) ** 2 + ((y - 0.1) / 0.35) ** 2 < 1
    return (left | right).expand(count, size, size).clone()


def noise_image(count: int = 4, size: int = 64) -> Tensor:
    return min_max(torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0)))


def as_image(masks: Tensor) -> Tensor:
    return masks[:, None].float() * 2 - 1


def augment(
    images: Tensor, masks: Tensor, seed: int = 0, config: AugmentationConfig = DEFAULT
) -> tuple[Tensor, Tensor]:
    augmentation = Augmentation(config)
    torch.manual_seed(seed)
    augmented, _, moved = augmentation(images, masks)
    return augmented, moved


@pytest.mark.parametrize("size", [32, 48, 64, 144])
def test_shapes_types_and_range_are_kept(size: int) -> None:
    everything = replace(DEFAULT, flip=1.0, opacity=1.0, illumination=1.0, equalisation=1.0, blur=1.0, occlusion=1.0)
    for config in (DEFAULT, everything):
        images, masks = augment(noise_image(2, size), ellipses(2, size), config=config)
        assert images.shape == (2, 1, size, size)
        assert images.dtype == torch.float32
        assert images.amin(dim=(1, 2, 3)).tolist() == pytest.approx([-1, -1])
        assert images.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
        assert masks.shape == (2, size, size)
        assert masks.dtype == torch.bool


def test_the_input_is_left_as_it_is() -> None:
    images, masks = noise_image(), ellipses()
    augment(images, masks)
    assert torch.equal(images, noise_image())
    assert torch.equal(masks, ellipses())


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_moves_with_the_image(seed: int) -> None:
    masks = ellipses()
    images, moved = augment(as_image(masks), masks, seed, replace(OFF, **GEOMETRY))
    assert (moved != masks).float().mean() > 0.02
    assert ((images[:, 0] > 0) == moved).float().mean() > 0.98


def test_a_flip_is_exact() -> None:
    images, masks = augment(noise_image(), ellipses(), config=replace(OFF, flip=1.0))
    torch.testing.assert_close(images, noise_image().flip(3))
    assert torch.equal(masks, ellipses().flip(2))


def test_a_shift_stays_within_its_share_of_the_side() -> None:
    centre = torch.zeros(64, 64, 64, dtype=torch.bool)
    centre[:, 28:36, 28:36] = True
    _, moved = augment(as_image(centre), centre, config=replace(OFF, translation=0.25))
    shifts = torch.stack([one.nonzero().float().mean(0) - 31.5 for one in moved])
    assert 8 < shifts.abs().max() <= 16.5


def test_each_axis_is_scaled_by_itself_within_the_limits() -> None:
    square = torch.zeros(64, 64, 64, dtype=torch.bool)
    square[:, 16:48, 16:48] = True
    _, moved = augment(as_image(square), square, config=replace(OFF, scale=(0.5, 1.5)))
    heights, widths = moved.any(2).sum(1), moved.any(1).sum(1)
    for sides in (heights, widths):
        assert 15 <= sides.min() < 24
        assert 40 < sides.max() <= 49
    assert (heights - widths).abs().max() > 8


def test_everything_off_leaves_image_and_mask() -> None:
    images, masks = augment(noise_image(), ellipses(), config=OFF)
    torch.testing.assert_close(images, noise_image(), rtol=0, atol=1e-5)
    assert torch.equal(masks, ellipses())


@pytest.mark.parametrize("name", PHOTOMETRY)
def test_each_photometric_switch_changes_the_image_and_not_the_mask(name: str) -> None:
    config = replace(OFF, **{name: PHOTOMETRY[name]})
    changed = False
    for seed in range(4):  # gamma has a probability of its own
        images, masks = augment(noise_image(), ellipses(), seed, config)
        changed |= bool(((images - noise_image()).abs() > 0.05).any())
        assert torch.equal(masks, ellipses())
    assert changed


@pytest.mark.parametrize("name", GEOMETRY)
def test_each_geometric_switch_moves_the_mask(name: str) -> None:
    _, masks = augment(as_image(ellipses()), ellipses(), config=replace(OFF, **{name: GEOMETRY[name]}))
    assert not torch.equal(masks, ellipses())


@pytest.mark.parametrize("seed", range(3))
def test_the_clean_images_are_moved_like_the_others_but_keep_their_photometry(seed: int) -> None:
    augmented, clean, masks = draw(replace(OFF, **GEOMETRY, **PHOTOMETRY), seed)
    moved, moved_clean, moved_masks = draw(replace(OFF, **GEOMETRY), seed)
    assert torch.equal(masks, moved_masks)
    torch.testing.assert_close(clean, moved_clean, rtol=0, atol=1e-6)
    torch.testing.assert_close(clean, moved, rtol=0, atol=1e-5)
    assert (augmented - clean).abs().mean() > 0.1


def draw(config: AugmentationConfig, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    augmentation = Augmentation(config)
    torch.manual_seed(seed)
    out: tuple[Tensor, Tensor, Tensor] = augmentation(noise_image(), ellipses())
    return out


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    first, again, other = (augment(noise_image(), ellipses(), seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_what_was_drawn_before_does_not_matter() -> None:
    augmentation = Augmentation(DEFAULT)
    torch.manual_seed(5)
    fresh = augmentation(noise_image(), ellipses())
    augmentation(noise_image(), ellipses())
    torch.manual_seed(5)
    used = augmentation(noise_image(), ellipses())
    assert all(torch.equal(one, other) for one, other in zip(fresh, used, strict=True))


def test_images_of_a_batch_are_changed_differently() -> None:
    images, masks = augment(noise_image(1).expand(4, 1, 64, 64), ellipses())
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("seed", range(20))
def test_the_bundled_models_settings_never_give_something_that_is_not_a_number(seed: int) -> None:
    images, _ = augment(noise_image(), ellipses(), seed, replace(DEFAULT, noise=0.4))
    assert torch.isfinite(images).all()


def test_noise_has_at_most_the_largest_deviation_and_differs_between_images() -> None:
    torch.manual_seed(0)
    deviations = add_noise(torch.zeros(64, 1, 64, 64), 0.2).std(dim=(1, 2, 3))
    assert 0.15 < deviations.max() < 0.22
    assert deviations.median() < 0.1
    assert not add_noise(torch.zeros(4, 1, 32, 32), 0.0).any()


def test_an_occlusion_is_one_rectangle_of_one_grey() -> None:
    torch.manual_seed(0)
    before = noise_image(32)
    after = add_occlusion(before, 1.0)
    covered = 0
    for one, original in zip(after[:, 0], before[:, 0], strict=True):
        changed = (one != original).nonzero()
        if not len(changed):
            continue
        (top, left), (bottom, right) = changed.amin(0), changed.amax(0)
        assert len(one[top : bottom + 1, left : right + 1].unique()) == 1
        assert max(bottom - top, right - left) <= 0.4 * 64
        covered += 1
    assert covered > 16
    assert torch.equal(add_occlusion(before, 0.0), before)


def test_collimation_touches_the_border_alone() -> None:
    torch.manual_seed(0)
    before = noise_image(32)
    after = add_collimation(before, 1.0)
    band = 8  # 12 % of 64
    assert torch.equal(after[..., band:-band, band:-band], before[..., band:-band, band:-band])
    changed = after != before
    assert changed.flatten(1).any(1).sum() > 16
    assert set(after[changed].tolist()) == {0.0, 1.0}
    assert torch.equal(add_collimation(before, 0.0), before)


@pytest.mark.parametrize(
    ("values", "expected"), [([2.0, 4.0, 3.0], [-1.0, 1.0, 0.0]), ([5.0, 5.0, 5.0], [-1.0, -1.0, -1.0])]
)
def test_min_max_stretches_each_image(values: list[float], expected: list[float]) -> None:
    image: Any = torch.tensor(values).reshape(1, 1, 1, 3)
    assert min_max(image).flatten().tolist() == pytest.approx(expected)
