"""Distances from what is usual, against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from cxredge.quality.typicality import Gaussian, fit_gaussian, held_out

RNG = np.random.default_rng(5)
VECTORS = RNG.normal(0, [5, 2, 0.5, 0.5, 0.5], (400, 5)) @ np.linalg.qr(RNG.normal(size=(5, 5)))[0] + 3


def test_with_one_direction_fewer_than_numbers_it_is_the_mahalanobis_distance() -> None:
    usual = fit_gaussian(VECTORS, 4)
    offset = RNG.normal(0, 4, 5)
    covariance = np.cov(VECTORS.T, bias=True)
    expected = offset @ np.linalg.inv(covariance) @ offset
    assert usual.distance(VECTORS.mean(axis=0) + offset) == pytest.approx(expected)


def test_beyond_the_directions_every_offset_weighs_the_same() -> None:
    usual = fit_gaussian(VECTORS, 2)
    aside = np.linalg.svd(usual.directions)[2][2:]
    distances = [usual.distance(usual.mean + 3 * one) for one in (aside[0], aside[1], aside[2], aside.sum(0) / 3**0.5)]
    assert distances == pytest.approx([9 / usual.rest] * 4)


def test_the_distance_is_the_number_of_dimensions_on_average() -> None:
    usual = fit_gaussian(VECTORS, 2)
    assert np.mean([usual.distance(vector) for vector in VECTORS]) == pytest.approx(5)


def test_held_out_distances_are_larger_for_what_only_one_vector_shows() -> None:
    vectors = VECTORS.copy()
    vectors[7] = vectors.mean(axis=0) + 100 * np.eye(5)[0]
    within = fit_gaussian(vectors, 4).distance(vectors[7])
    assert held_out(vectors, 4)[7] > 3 * within


def test_constant_vectors_are_no_division_by_zero() -> None:
    usual = fit_gaussian(np.ones((10, 5)), 2)
    assert usual.distance(np.ones(5)) == pytest.approx(0)
    assert np.isfinite(usual.distance(np.zeros(5)))


def test_five_digits_are_stored() -> None:
    usual = fit_gaussian(VECTORS, 2)
    content = usual.to_dict()
    again = Gaussian(*(np.array(content[name]) for name in ("mean", "directions", "variances")), content["rest"])
    assert again.distance(VECTORS[0]) == pytest.approx(usual.distance(VECTORS[0]), rel=1e-3)
    assert all(len(f"{abs(value):g}".replace(".", "").lstrip("0")) <= 6 for value in content["mean"])
