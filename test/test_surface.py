"""The depth image that is made of fewer pixels than it has."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from d4rt_ros.stream import surface as surfaces
from d4rt_ros.stream.surface import SMOOTH, Surface


@pytest.mark.parametrize("size", [(48, 64), (50, 61), (7, 65), (300, 1000)])
def test_depth_is_smooth_on_surfaces_and_sharp_at_edges(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many bands it is made in, and with pixels that are not valid."""
    monkeypatch.setattr(surfaces, "BAND", 1000)
    random, shape = np.random.default_rng(0), (6, 8)
    depth = random.uniform(1.0, 1.05, shape).astype(np.float32)
    depth[:, 5:] *= 3.0
    valid = random.random(shape) > 0.1
    xyz = np.stack([depth.ravel()] * 3, -1)
    image = np.zeros((*size, 3), np.uint8)
    found = Surface(shape, xyz, np.ones(depth.size, np.float32), valid.ravel(), image).depth(size, 2.0)

    asked = np.where(valid, 2.0 * depth, np.nan).astype(np.float32)
    smooth = cv2.resize(asked, size[::-1], interpolation=cv2.INTER_LINEAR)
    nearest = cv2.resize(asked, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    same = np.abs(smooth - nearest) <= nearest * np.float32(SMOOTH)
    assert 0.2 < same.mean() < 0.9
    assert found.dtype == np.float32 and np.array_equal(
        found, np.where(same, smooth, nearest), equal_nan=True
    )
