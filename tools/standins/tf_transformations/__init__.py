"""Stand-in for tf_transformations: quaternions [x, y, z, w], 4x4 matrices, Euler angles in radians."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation, Slerp


def _sequence(axes: str) -> str:
    """Turns "sxyz" (static axes) and "rxyz" (rotating axes) into scipy's xyz and XYZ."""
    return axes[1:] if axes[0] == "s" else axes[1:].upper()


def _quaternion(rotation: Rotation) -> np.ndarray:
    """Returns [x, y, z, w] with w >= 0."""
    quaternion = rotation.as_quat()
    return -quaternion if quaternion[3] < 0 else quaternion


def _matrix(rotation: Rotation) -> np.ndarray:
    """Returns the 4x4 matrix of a rotation."""
    matrix = np.identity(4)
    matrix[:3, :3] = rotation.as_matrix()
    return matrix


def identity_matrix() -> np.ndarray:
    """Returns the 4x4 identity."""
    return np.identity(4)


def translation_matrix(direction: Sequence[float]) -> np.ndarray:
    """Returns the 4x4 matrix of a translation."""
    matrix = np.identity(4)
    matrix[:3, 3] = direction[:3]
    return matrix


def translation_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns the translation [3] of a 4x4 matrix."""
    return np.array(matrix)[:3, 3]


def quaternion_matrix(quaternion: Sequence[float]) -> np.ndarray:
    """Returns the 4x4 matrix of a quaternion of any length."""
    return _matrix(Rotation.from_quat(quaternion))


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns the quaternion of a 4x4 matrix."""
    return _quaternion(Rotation.from_matrix(np.asarray(matrix)[:3, :3]))


def quaternion_from_euler(ai: float, aj: float, ak: float, axes: str = "sxyz") -> np.ndarray:
    """Returns the quaternion of three angles about the axes."""
    return _quaternion(Rotation.from_euler(_sequence(axes), [ai, aj, ak]))


def euler_from_quaternion(quaternion: Sequence[float], axes: str = "sxyz") -> tuple[float, float, float]:
    """Returns three angles about the axes."""
    return tuple(Rotation.from_quat(quaternion).as_euler(_sequence(axes)))


def euler_matrix(ai: float, aj: float, ak: float, axes: str = "sxyz") -> np.ndarray:
    """Returns the 4x4 matrix of three angles about the axes."""
    return _matrix(Rotation.from_euler(_sequence(axes), [ai, aj, ak]))


def euler_from_matrix(matrix: np.ndarray, axes: str = "sxyz") -> tuple[float, float, float]:
    """Returns three angles about the axes of a 4x4 matrix."""
    return tuple(Rotation.from_matrix(np.asarray(matrix)[:3, :3]).as_euler(_sequence(axes)))


def quaternion_multiply(quaternion1: Sequence[float], quaternion0: Sequence[float]) -> np.ndarray:
    """Returns the product: first quaternion0's rotation, then quaternion1's."""
    return (Rotation.from_quat(quaternion1) * Rotation.from_quat(quaternion0)).as_quat()


def quaternion_inverse(quaternion: Sequence[float]) -> np.ndarray:
    """Returns the inverse."""
    return Rotation.from_quat(quaternion).inv().as_quat()


def quaternion_slerp(quat0: Sequence[float], quat1: Sequence[float], fraction: float) -> np.ndarray:
    """Returns the rotation at fraction (0..1) of the shorter way from quat0 to quat1."""
    return Slerp([0.0, 1.0], Rotation.from_quat([quat0, quat1]))(fraction).as_quat()


def inverse_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns the inverse of a 4x4 matrix."""
    return np.linalg.inv(matrix)


def concatenate_matrices(*matrices: np.ndarray) -> np.ndarray:
    """Returns the product of 4x4 matrices, from left to right."""
    product = np.identity(4)
    for matrix in matrices:
        product = product @ matrix
    return product
