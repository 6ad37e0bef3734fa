"""Camera track errors against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d4rt_ros.evaluation.camera_metrics import (
    align_sim3,
    camera_scores,
    rotation_between_deg,
    span_rotation_deg,
)


def _poses(positions: list[list[float]], yaw_deg: list[float] | None = None) -> np.ndarray:
    out = np.tile(np.eye(4), (len(positions), 1, 1))
    out[:, :3, 3] = positions
    if yaw_deg is not None:
        out[:, :3, :3] = Rotation.from_rotvec(np.radians(yaw_deg)[:, None] * [0, 0, 1]).as_matrix()
    return out


SQUARE = [[1.0, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]


def test_ate_of_a_squashed_square_by_hand() -> None:
    squashed = _poses([[x, 0.5 * y, z] for x, y, z in SQUARE])
    # The best scale is (1 + .5) / (1 + .25) = 1.2, which leaves (.2, -.4) at every corner.
    assert camera_scores(squashed, _poses(SQUARE)).ate == pytest.approx(np.sqrt(0.2**2 + 0.4**2))


def test_errors_forget_a_similarity() -> None:
    truth = _poses([[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 3]], [0, 10, 40, 90])
    turn = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()
    moved = truth.copy()
    moved[:, :3, :3] = turn @ truth[:, :3, :3]
    moved[:, :3, 3] = 0.3 * truth[:, :3, 3] @ turn.T + [5, 6, 7]
    scores = camera_scores(moved, truth)
    assert scores.ate == pytest.approx(0, abs=1e-9)
    assert scores.rpe_translation == pytest.approx(0, abs=1e-9)
    assert scores.rpe_rotation_deg == pytest.approx(0, abs=1e-5)


def test_rpe_by_hand() -> None:
    truth = _poses(SQUARE, [0, 0, 0, 0])
    estimate = _poses(SQUARE, [0, 0, 3, 3])
    # Positions agree, so the alignment is the identity. One of three steps turns by 3 degrees too much.
    scores = camera_scores(estimate, truth)
    assert scores.rpe_rotation_deg == pytest.approx(np.sqrt(9 / 3))
    # Only the last step starts from a turned camera: 2 long, seen 3 degrees off.
    assert scores.rpe_translation == pytest.approx(np.sqrt((2 * 2 * np.sin(np.radians(1.5))) ** 2 / 3))
    assert camera_scores(estimate, truth, delta=2).rpe_rotation_deg == pytest.approx(3)


def test_rpe_counts_all_pairs() -> None:
    truth = _poses(SQUARE, [0, 0, 0, 0])
    estimate = _poses(SQUARE, [0, 0, 3, 4])
    # Frames 0 to 2 turn by 3 degrees too much, frames 1 to 3 by 4.
    assert camera_scores(estimate, truth, delta=2).rpe_rotation_deg == pytest.approx(np.sqrt((9 + 16) / 2))


def test_standing_still_costs_the_spread_of_the_truth() -> None:
    still = np.tile(np.eye(4), (4, 1, 1))
    scores = camera_scores(still, _poses(SQUARE))
    assert scores.ate == pytest.approx(np.sqrt(2))
    assert scores.rpe_translation == pytest.approx(2)


def test_straight_line_is_aligned_by_orientation() -> None:
    truth = _poses([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    turn = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    estimate = truth.copy()
    estimate[:, :3, :3] = turn
    estimate[:, :3, 3] = 4 * truth[:, :3, 3] @ turn.T
    assert align_sim3(estimate, truth)[:, :3, 3] == pytest.approx(truth[:, :3, 3], abs=1e-9)
    assert camera_scores(estimate, truth).ate == pytest.approx(0, abs=1e-9)
    backwards = truth.copy()
    backwards[:, 2, 3] *= -1
    # A camera that drives the wrong way is not mirrored into a right one: the best scale is 0.
    assert camera_scores(backwards, truth).ate == pytest.approx(np.sqrt(2 / 3))


def test_span_rotation_by_hand() -> None:
    truth = _poses([[0, 0, 0]] * 3, [30, 33, 42])
    estimate = _poses([[0, 0, 0]] * 3, [0, 50, 10])
    found, still = span_rotation_deg(estimate, truth, 0, 2)
    assert found == pytest.approx(2)
    assert still == pytest.approx(12)
    assert rotation_between_deg(truth[0], truth[1]) == pytest.approx(3)


def test_poses_printed_to_few_digits_are_good_enough() -> None:
    truth = _poses([[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 3]], [0, 10, 40, 90])
    scores = camera_scores(np.round(truth, 3), truth)
    assert scores.ate < 1e-3 and scores.rpe_rotation_deg < 0.1


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_are_refused(frames: int) -> None:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    with pytest.raises(ValueError, match="at least 3"):
        camera_scores(poses, poses)


def test_broken_poses_are_refused() -> None:
    truth = _poses(SQUARE)
    broken = truth.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 4 poses"):
        camera_scores(broken, truth)
    with pytest.raises(ValueError, match="differ in shape"):
        camera_scores(truth[:3], truth)
    with pytest.raises(ValueError, match="delta is 4"):
        camera_scores(truth, truth, delta=4)
    with pytest.raises(ValueError, match=r"expected \[T, 4, 4\]"):
        camera_scores(truth[:, :3], truth[:, :3])
