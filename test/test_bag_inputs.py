"""What a recording brings besides images: transforms, and depth as transports compress it."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from d4rt_ros.bag.compressed_depth import decode_compressed_depth
from d4rt_ros.bag.transforms import TransformBuffer


def pose(x: float, yaw: float = 0.0) -> np.ndarray:
    """[4, 4]."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", yaw, degrees=True).as_matrix()
    matrix[0, 3] = x
    return matrix


@pytest.fixture
def tree() -> TransformBuffer:
    """Map -> odom (moving) -> base (moving) -> camera (static), as robots have it."""
    buffer = TransformBuffer()
    for stamp, x, yaw in ((1_000, 0.0, 0.0), (3_000, 2.0, 90.0)):
        buffer.add("odom", "base", stamp, pose(x, yaw), static=False)
        buffer.add("map", "odom", stamp, pose(10.0), static=False)
    buffer.add("/base", "/camera", 0, pose(0.5), static=True)
    return buffer


def test_lookups_interpolate_and_go_up_and_down_the_tree(tree: TransformBuffer) -> None:
    found = tree.lookup("map", "camera", 2_000)
    assert found is not None
    np.testing.assert_allclose(found, pose(10.0) @ pose(1.0, 45.0) @ pose(0.5), atol=1e-12)
    back = tree.lookup("camera", "map", 2_000)
    assert back is not None
    np.testing.assert_allclose(back @ found, np.eye(4), atol=1e-12)
    exact = tree.lookup("odom", "base", 3_000)
    assert exact is not None
    np.testing.assert_allclose(exact, pose(2.0, 90.0), atol=1e-12)


def test_nothing_is_made_up(tree: TransformBuffer) -> None:
    assert tree.lookup("odom", "base", 999) is None  # before
    assert tree.lookup("odom", "base", 3_001) is None  # after
    assert tree.lookup("odom", "lidar", 2_000) is None  # another tree
    static = tree.lookup("base", "camera", 77)
    assert static is not None
    np.testing.assert_allclose(static, pose(0.5))


def test_old_edges_are_forgotten_and_a_loop_starts_over(tree: TransformBuffer) -> None:
    tree.keep_ns = 1_000
    tree.add("odom", "base", 5_000, pose(3.0), static=False)
    assert tree.lookup("odom", "base", 2_000) is None
    tree.add("odom", "base", 100, pose(4.0), static=False)
    assert tree.lookup("odom", "base", 5_000) is None
    assert tree.lookup("odom", "base", 100) is not None


def test_a_circle_of_frames_ends() -> None:
    buffer = TransformBuffer()
    buffer.add("a", "b", 0, pose(1.0), static=True)
    buffer.add("b", "a", 0, pose(1.0), static=True)
    assert buffer.lookup("c", "a", 0) is None


def png(values: np.ndarray) -> np.ndarray:
    """Bytes of a PNG."""
    good, data = cv2.imencode(".png", values)
    assert good
    return data.ravel()


def with_header(data: np.ndarray, a: float = 0.0, b: float = 0.0) -> np.ndarray:
    """As compressed_depth_image_transport puts it."""
    return np.concatenate([np.frombuffer(struct.pack("<iff", 0, a, b), np.uint8), data])


def test_depth_is_read_from_png_plain_and_in_its_transport() -> None:
    millimetres = np.array([[0, 1500], [65535, 1]], np.uint16)
    expected = np.array([[np.nan, 1.5], [65.535, 0.001]], np.float32)
    plain = decode_compressed_depth("png", png(millimetres))
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    transport = decode_compressed_depth("16UC1; compressedDepth png", with_header(png(millimetres)))
    np.testing.assert_allclose(transport, expected, rtol=1e-6)


def test_quantised_inverse_depth_is_undone() -> None:
    # The transport stores A / depth + B, with A = quantisation * (quantisation + 1), B = 1 - A / depth_max.
    a, largest = 100.0 * 101.0, 10.0
    b = 1.0 - a / largest
    depth = np.array([[2.0, 5.0]])
    stored = np.round(a / depth + b).astype(np.uint16)
    found = decode_compressed_depth("32FC1; compressedDepth png", with_header(png(stored), a, b))
    np.testing.assert_allclose(found, depth, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("16UC1; compressedDepth rvl", with_header(np.zeros(40, np.uint8)), "rvl' is not supported"),
        ("16UC1; compressedDepth png", np.zeros(5, np.uint8), "5 bytes, not even its header"),
        ("16UC1; compressedDepth png", with_header(np.zeros(40, np.uint8)), "no 16-bit PNG"),
        ("png", png(np.zeros((2, 2), np.uint8)), "no 16-bit PNG"),
        ("png", np.zeros(0, np.uint8), "no 16-bit PNG"),
    ],
)
def test_other_depth_is_refused(kind: str, data: np.ndarray, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_compressed_depth(kind, data)
