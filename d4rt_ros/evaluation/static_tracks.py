"""True point tracks of a scene in which only the camera moves, out of depth and poses.

Lift a pixel with its depth, carry it into another camera, and look at the depth there: a point that lies
behind the measured surface is hidden, one that lies on it is visible, one in front of it shows that depth or
pose is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

# A measured surface and a point on it agree within this share of the depth (sensor noise, pose error).
_SAME_SURFACE = 0.05


@dataclass(frozen=True, eq=False)
class StaticTracks:
    """N points of one frame followed through T frames.

    Attributes:
        uv: [T, N, 2] where each point projects, 0..1 over the image, also when outside or hidden; NaN behind
            the camera.
        xyz: [T, N, 3] metres in the camera of each frame.
        visible: bool [T, N].
        valid: bool [T, N], where visibility is known: the depth there was measured and does not contradict.
    """

    uv: np.ndarray
    xyz: np.ndarray
    visible: np.ndarray
    valid: np.ndarray


def lift(uv: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Points [N, 3] in the camera frame of pixels uv [N, 2] (0..1), with the depth of the nearest pixel.

    `depth` is [H, W] metres, `intrinsics` the K of that image; NaN where there is no depth.
    """
    height, width = depth.shape
    z = sample_depth(depth, uv)
    x = (uv[:, 0] * width - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (uv[:, 1] * height - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([x * z, y * z, z], -1)


def sample_depth(depth: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Depth [N] of the pixels in which uv [N, 2] lie, NaN outside the image or for NaN."""
    height, width = depth.shape
    inside = np.isfinite(uv).all(-1) & (uv >= 0).all(-1) & (uv < 1).all(-1)
    safe = np.where(inside[:, None], uv, 0.0)
    found = depth[(safe[:, 1] * height).astype(int), (safe[:, 0] * width).astype(int)]
    return np.where(inside, found, np.nan)


def project(xyz: np.ndarray, intrinsics: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels uv [..., 2] in 0..1 of points [..., 3] in a camera frame; NaN for points not in front of it."""
    height, width = image_size
    z = np.where(xyz[..., 2] > 1e-6, xyz[..., 2], np.nan)
    u = (intrinsics[0, 0] * xyz[..., 0] / z + intrinsics[0, 2]) / width
    v = (intrinsics[1, 1] * xyz[..., 1] / z + intrinsics[1, 2]) / height
    return np.stack([u, v], -1)


def static_tracks(
    uv: np.ndarray,
    source: int,
    depths: Seq[np.ndarray],
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
) -> StaticTracks:
    """Follow the points at uv [N, 2] of frame `source` through all T frames.

    Args:
        uv: 0..1 over the image. A point without depth comes out NaN and not valid.
        source: the frame that they are given in.
        depths: T images [H, W] in metres, NaN where nothing was measured.
        world_from_camera: [T, 4, 4].
        intrinsics: K [3, 3] of those images.
    """
    size = depths[source].shape
    world = _moved(world_from_camera[source], lift(uv, depths[source], intrinsics))
    xyz = np.stack([_moved(np.linalg.inv(pose), world) for pose in world_from_camera])
    there = project(xyz, intrinsics, (size[0], size[1]))
    measured = np.stack([sample_depth(depth, at) for depth, at in zip(depths, there)])
    inside = np.isfinite(there).all(-1) & (there >= 0).all(-1) & (there < 1).all(-1)
    with np.errstate(invalid="ignore"):
        on_surface = np.abs(xyz[..., 2] - measured) <= _SAME_SURFACE * measured
        behind = xyz[..., 2] > (1 + _SAME_SURFACE) * measured
    known = np.isfinite(xyz).all(-1)
    # Out of the image or behind the camera needs no depth to be known as unseen.
    return StaticTracks(there, xyz, inside & on_surface, known & (~inside | on_surface | behind))


def _moved(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ pose[:3, :3].T + pose[:3, 3]
