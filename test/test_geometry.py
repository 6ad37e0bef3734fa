"""Umeyama and its robust form, against random truths, outliers and point sets that cannot fix a pose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from d4rt_ros.tasks.consensus import umeyama
from d4rt_ros.tasks.geometry import (
    UNKNOWN_VARIANCE,
    align,
    align_many,
    invert,
    rotation_angle,
    sim3_matrix,
    sim3_parts,
    transform_covariance,
    transform_points,
    transform_poses,
)


def similarity(seed: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return sim3_matrix(scale, Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3) * 10)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), log_scale=st.floats(-3, 3), count=st.integers(4, 40), robust=st.booleans()
)
def test_a_random_similarity_is_recovered(seed: int, log_scale: float, count: int, robust: bool) -> None:
    truth = similarity(seed, 10**log_scale)
    source = np.random.default_rng(seed).normal(size=(count, 3)) + [0, 0, 4]
    fit = align(source, transform_points(truth, source), with_scale=True, robust=robust)
    assert fit.ok and fit.reason == ""
    np.testing.assert_allclose(fit.matrix, truth, rtol=1e-7, atol=1e-7 * 10**log_scale + 1e-7)
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)


def test_a_mirrored_set_still_gets_a_rotation() -> None:
    source = np.random.default_rng(1).normal(size=(1, 30, 3))
    for mirrored in (source * [-1, 1, 1], source * [1, 1, 0] * [-1, 1, 1]):
        _, rotation, _ = umeyama(source, mirrored, np.ones((1, 30)), True)
        assert np.linalg.det(rotation[0]) == pytest.approx(1.0)


def test_weights_choose_whom_to_believe() -> None:
    rng = np.random.default_rng(2)
    source = rng.normal(size=(20, 3))
    target = transform_points(similarity(5, 1.0), source)
    target[:10] = rng.normal(size=(10, 3))
    weights = np.repeat([0.0, 1.0], 10)
    np.testing.assert_allclose(
        align(source, target, weights, robust=False).matrix, similarity(5, 1.0), atol=1e-9
    )
    assert np.abs(align(source, target, robust=False).matrix - similarity(5, 1.0)).max() > 0.1


@pytest.mark.parametrize("share", [0.2, 0.4])
@pytest.mark.parametrize("kind", ["scattered", "moving together"])
def test_outliers_do_not_move_the_fit(share: float, kind: str) -> None:
    rng = np.random.default_rng(7)
    for seed in range(8):
        truth = similarity(seed, 1.7)
        source = rng.normal(size=(80, 3)) * [2, 1.5, 1] + [0, 0, 5]
        target = transform_points(truth, source) + 0.01 * rng.normal(size=(80, 3))
        bad = int(share * 80)
        target[:bad] += 4 * rng.normal(size=(bad, 3)) if kind == "scattered" else [2.0, 1.0, 0.0]
        fit = align(source, target, with_scale=True)
        assert fit.inlier_share == pytest.approx(1 - share, abs=0.08)
        assert fit.weights[:bad].mean() < 0.05 < 0.5 < fit.weights[bad:].mean()
        assert rotation_angle(fit.rotation @ sim3_parts(truth)[1].T) < np.radians(0.2)
        assert fit.scale == pytest.approx(1.7, rel=3e-3)


def test_more_wrong_points_than_right_ones_are_survived_when_they_do_not_agree() -> None:
    rng = np.random.default_rng(8)
    for seed in range(4):
        truth = similarity(seed, 1.0)
        source = rng.normal(size=(64, 3)) * [2, 1.5, 1] + [0, 0, 5]
        target = transform_points(truth, source) + 0.01 * rng.normal(size=(64, 3))
        target[:37] = target.mean(0) + [6.0, 0, 0] + rng.normal(size=(37, 3))
        fit = align(source, target)
        assert rotation_angle(fit.rotation @ sim3_parts(truth)[1].T) < np.radians(0.5)


def test_two_unrelated_clouds_do_not_agree() -> None:
    rng = np.random.default_rng(6)
    fit = align(rng.normal(size=(2000, 3)), rng.normal(size=(2000, 3)))
    assert not fit.ok and "do not agree" in fit.reason


@pytest.mark.parametrize("outliers", [0, 20])
@pytest.mark.parametrize("with_scale", [False, True])
def test_the_covariance_is_the_spread_of_repeated_fits(outliers: int, with_scale: bool) -> None:
    rng = np.random.default_rng(11)
    truth = similarity(3, 1.0)
    source = rng.normal(size=(100, 3)) * [2, 1.5, 0.7] + [0, 0, 5]
    exact = np.tile(transform_points(truth, source), (200, 1, 1))
    target = exact + 0.02 * rng.normal(size=exact.shape)
    target[:, :outliers] += 5 * rng.normal(size=(200, outliers, 3))
    fits = align_many(source[None], target, with_scale=with_scale)
    turn = Rotation.from_matrix(np.stack([f.rotation for f in fits]) @ sim3_parts(truth)[1].T).as_rotvec()
    errors = np.concatenate([np.stack([f.translation for f in fits]) - truth[:3, 3], turn], axis=1)
    claimed = np.mean([f.covariance for f in fits], axis=0)
    ratio = np.diag(claimed) / (errors**2).mean(0)
    assert ((ratio > 0.6) & (ratio < 1.6)).all(), ratio
    measured = np.cov(errors.T)
    off = measured / np.sqrt(np.outer(np.diag(measured), np.diag(measured)))
    said = claimed / np.sqrt(np.outer(np.diag(claimed), np.diag(claimed)))
    np.testing.assert_allclose(said, off, atol=0.25)
    if with_scale:
        spread = np.var([f.scale for f in fits])
        assert 0.6 < np.mean([f.scale_variance for f in fits]) / spread < 1.6


def test_noise_on_both_sides_does_not_shrink_the_scale() -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(200, 400, 3)) * 0.5
    noisy = [points + 0.1 * rng.normal(size=points.shape) for _ in range(2)]
    scales = [f.scale for f in align_many(noisy[0], noisy[1], with_scale=True)]
    assert np.mean(scales) == pytest.approx(1.0, abs=2e-3)


CLOUD = np.random.default_rng(0).normal(size=(10, 3))
LINE = np.linspace(0, 1, 10)[:, None] * [[1.0, 2.0, 3.0]] + [0, 0, 4]


@pytest.mark.parametrize(
    ("points", "weights", "words"),
    [
        (CLOUD[:2], None, "only 2 of 2"),
        (CLOUD[:0], None, "only 0 of 0"),
        (CLOUD, np.zeros(10), "all 10 points are zero"),
        (CLOUD, np.eye(10)[0], "only 1 of 10 points are usable"),
        (CLOUD * np.nan, None, "only 0 of 10 points are finite"),
        (CLOUD, np.full(10, np.nan), "only 0 of 10 points are finite"),
        (LINE, None, "on a line"),
        (np.ones((10, 3)), None, "coincide"),
    ],
)
def test_impossible_sets_are_reported_not_fitted(
    points: np.ndarray, weights: np.ndarray | None, words: str
) -> None:
    fit = align(points, points + 1.0, weights, with_scale=True)
    assert not fit.ok and words in fit.reason
    np.testing.assert_array_equal(fit.matrix, np.eye(4))
    assert np.diag(fit.covariance).min() == fit.scale_variance == UNKNOWN_VARIANCE


def test_a_line_hidden_among_outliers_is_reported() -> None:
    target = np.concatenate([LINE, LINE + 0.2, CLOUD[:4] * 30])
    source = np.concatenate([LINE, LINE + 0.2, CLOUD[4:8] * 30])
    assert align(source[:10], target[:10]).reason
    source[10:20] = LINE
    target[10:20] = LINE
    assert not align(source, target).ok


def test_a_single_bad_number_only_costs_its_own_point() -> None:
    truth = similarity(9, 1.0)
    target = transform_points(truth, CLOUD)
    target[3, 1] = np.inf
    fit = align(CLOUD, target)
    assert fit.ok and fit.weights[3] == 0.0
    np.testing.assert_allclose(fit.matrix, truth, atol=1e-9)


def test_pure_noise_has_no_rotation() -> None:
    rng = np.random.default_rng(5)
    fit = align(rng.normal(size=(6, 3)), 1e3 * rng.normal(size=(6, 3)))
    assert not fit.ok and "undetermined" in fit.reason


def test_a_batch_answers_each_set_on_its_own() -> None:
    truths = np.stack([similarity(k, 1.0) for k in range(3)])
    targets = transform_points(truths, CLOUD)
    targets[1] = 2.0
    fits = align_many(CLOUD[None], targets)
    assert [f.ok for f in fits] == [True, False, True]
    np.testing.assert_allclose(fits[2].matrix, truths[2], atol=1e-9)


def test_similarities_invert_compose_and_keep_poses_rigid() -> None:
    a, b = similarity(1, 2.5), similarity(2, 0.3)
    np.testing.assert_allclose(
        invert(np.stack([a, b])) @ np.stack([a, b]), np.tile(np.eye(4), (2, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(
        transform_points(a @ b, CLOUD), transform_points(a, transform_points(b, CLOUD))
    )
    pose = similarity(3, 1.0)
    moved = transform_poses(a, pose)
    assert np.linalg.det(moved[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(moved[:3, 3], transform_points(a, pose[None, :3, 3])[0])
    np.testing.assert_allclose(moved[:3, :3], sim3_parts(a)[1] @ pose[:3, :3])


def test_covariance_turns_and_scales_with_the_frame() -> None:
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    moved = transform_covariance(sim3_matrix(2.0, quarter, [5, 6, 7]), np.diag([1.0, 2, 3, 4, 5, 6]))
    np.testing.assert_allclose(moved, np.diag([8.0, 4, 12, 5, 4, 6]), atol=1e-12)


def test_rotation_angle_is_exact_near_zero_and_pi() -> None:
    for angle in (0.0, 1e-9, 0.5, np.pi - 1e-7):
        assert rotation_angle(Rotation.from_rotvec([0, angle, 0]).as_matrix()) == pytest.approx(
            angle, abs=1e-15
        )


def test_shapes_that_do_not_match_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(9, 3\)"):
        align(CLOUD, CLOUD[:9])
