"""Distances of sets of vectors, on sets whose answer is known by hand and against the textbook's slow way."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mclip.training.measure import statistics as distribution


def test_the_distance_of_a_set_to_itself_is_zero_and_a_shift_is_its_square() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    assert distribution.frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-9)
    assert distribution.frechet_distance(vectors, vectors + [3, 0, 4, 0]) == pytest.approx(25)


def test_the_distance_to_a_stretched_set_is_the_change_of_its_standard_deviation() -> None:
    vectors = np.array([[-1.0, 0], [1, 0]])  # variance 2 along x, none along y: half of the spread matters
    assert distribution.frechet_distance(vectors, 3 * vectors) == pytest.approx((3 * 2**0.5 - 2**0.5) ** 2)


def test_the_distance_is_that_of_the_textbook() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(60, 5)), generator.normal(size=(40, 5)) @ generator.normal(size=(5, 5))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    slow = mean + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert distribution.frechet_distance(a, b) == pytest.approx(slow, rel=1e-6)


def test_one_vector_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 and 3 vectors, expected at least two"):
        distribution.frechet_distance(np.zeros((1, 2)), np.zeros((3, 2)))


def test_diversity_is_the_mean_distance_of_different_vectors() -> None:
    assert distribution.diversity(np.array([[0.0, 0], [3, 4]])) == pytest.approx(5)
    assert distribution.diversity(np.ones((9, 3))) == 0
    assert distribution.diversity(np.ones((1, 3))) == 0
    many = np.random.default_rng(2).normal(size=(30, 6))
    slow = np.mean([np.linalg.norm(many[i] - many[j]) for i in range(30) for j in range(30) if i != j])
    assert distribution.diversity(many, pairs=20000) == pytest.approx(slow, rel=0.02)


def test_alignment_is_one_whatever_the_turn_and_size_and_low_for_strangers() -> None:
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(200, 4))
    turn = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    assert distribution.linear_cka(vectors, 7 * vectors @ turn + 1) == pytest.approx(1)
    assert distribution.linear_cka(vectors, generator.normal(size=(200, 4))) < 0.1
    assert distribution.linear_cka(vectors, np.ones((200, 4))) == 0


def test_alignment_is_that_of_the_kernels() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.normal(size=(12, 3)), generator.normal(size=(12, 5))
    centre = np.eye(12) - 1 / 12
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    assert distribution.linear_cka(a, b) == pytest.approx((k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m)))


def test_an_interval_holds_the_mean_and_has_the_width_that_statistics_say() -> None:
    values = np.random.default_rng(5).normal(10, 2, size=400)
    low, high = distribution.interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 400**0.5, rel=0.15)
    assert distribution.interval(np.array([4.0, np.nan, 4.0])) == [4.0, 4.0]
    assert np.isnan(distribution.interval(np.array([np.nan]))).all()


def test_an_interval_misses_the_truth_about_one_time_in_twenty() -> None:
    generator = np.random.default_rng(6)
    held = [
        low < 0 < high
        for low, high in (distribution.interval(generator.normal(size=60), repeats=200) for _ in range(200))
    ]
    assert 0.88 < np.mean(held) < 0.99


def test_a_median_has_the_interval_of_a_median_and_batches_count_as_they_are() -> None:
    ranks = np.array([1.0, 1, 1, 1, 50, 90, 2, 1, 1])
    found = distribution.Measured(ranks, median=True)
    assert found.figure == 1
    assert found.interval == distribution.interval(ranks, statistic=np.median)
    assert found.interval[1] <= 50
    assert distribution.Measured(ranks).interval[1] > 20


def test_a_tree_gives_its_figures_and_the_same_tree_of_intervals() -> None:
    column = distribution.Measured(np.array([0.0, 1.0, np.nan]))
    tree = {"a": {"x": column, "queries": 3}, "b": {"y": 0.5}, "c": {}}
    assert distribution.figures_of(tree) == {"a": {"x": 0.5, "queries": 3}, "b": {"y": 0.5}, "c": {}}
    assert distribution.intervals_of(tree) == {"a": {"x": [0.0, 1.0]}}
    assert np.isnan(distribution.Measured(np.array([np.nan])).figure)


def test_the_principal_axes_of_a_stretched_cloud_are_its_own() -> None:
    cloud = np.array([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]) + [5, 5, 5]
    place, share = distribution.principal_axes(cloud)
    assert np.allclose(place, [[3, 0], [-3, 0], [0, 1], [0, -1]])
    assert share == pytest.approx([0.9, 0.1])
    assert np.allclose(distribution.principal_axes(np.ones((3, 4)))[0], 0)


def test_the_principal_axes_are_those_of_the_singular_values() -> None:
    vectors = np.random.default_rng(8).normal(size=(30, 6)) @ np.random.default_rng(9).normal(size=(6, 6))
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    place, share = distribution.principal_axes(vectors)
    assert np.allclose(np.abs(place), np.abs(u[:, :2] * s[:2]))
    assert share == pytest.approx(s[:2] ** 2 / (s**2).sum())


def test_what_is_not_known_is_left_out() -> None:
    nan = float("nan")
    tree = {"a": {"x": 1.0, "y": nan, "queries": 3}, "ci95": {"a": {"x": [0.0, 2.0], "y": [nan, nan]}}}
    assert distribution.known(tree) == {"a": {"x": 1.0, "queries": 3}, "ci95": {"a": {"x": [0.0, 2.0]}}}
