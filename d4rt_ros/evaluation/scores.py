"""Scores of a model's answers for one clip, each beside what costs nothing.

The baselines: depth that is the same everywhere (absrel_constant), a camera that stands still (*_still),
points that stay where they were (track_px_still, and in 3D where they truly were: aj_still), a field of view
of 70 degrees (focal_err_default), points that stay visible for ever (visibility_acc_always).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from d4rt_ros.evaluation.camera_metrics import camera_scores, span_rotation_deg
from d4rt_ros.evaluation.clip import Clip, unit_intrinsics
from d4rt_ros.evaluation.depth_metrics import focal_error, point_cloud_l1, scaled_depth_scores
from d4rt_ros.evaluation.track_metrics import (
    metric_intrinsics,
    tapvid3d_scores,
    track_pixel_errors,
    visibility_accuracy,
)
from d4rt_ros.model import SceneLike
from d4rt_ros.tasks import camera_track, depth_at, intrinsics, tracks
from d4rt_ros.tasks.ask import ask

POSE_GRID = 16
_CLOUD_STRIDE = 4
_DEFAULT_FOCAL = 0.5 / np.tan(np.radians(70) / 2)  # over the image's width
# Everything else is averaged over clips; these are medians: of points, or of clips for the focal length.
MEDIANS = ("track_px", "track_px_still", "focal_err", "focal_err_default")

Samples = dict[str, list[float]]


def score_clip(scene: SceneLike, clip: Clip) -> Samples:
    """All that the clip's truth allows: samples by name, to be put together with `summarise`.

    absrel, delta125: depth after one median scale for the clip. absrel_shift: after one scale and shift.
    cloud_l1: all frames' points in the first camera, after scale and mean shift, metres. rot_deg: error of
    the rotation over the clip's span, degrees. ate, rpe_translation (metres) and rpe_rotation_deg: after
    Sim(3). focal_err: relative. track_px: of points given in the first frame, visible later, in pixels of an
    image 256 wide. aj, apd, oa: as TAPVid-3D scores tracks, over this clip. visibility_acc: of the frames
    after the first.
    """
    samples: Samples = {}
    if clip.depth is not None and sum(map(len, clip.depth)) > 0:
        samples.update(_depth(scene, clip))
    if clip.world_from_camera is not None:
        samples.update(_camera(scene, clip))
    if clip.intrinsics is not None:
        found = unit_intrinsics(intrinsics(scene, POSE_GRID).matrix, scene.image_size)
        default = np.diag([_DEFAULT_FOCAL, _DEFAULT_FOCAL * clip.aspect_ratio, 1.0])
        samples["focal_err"] = [focal_error(found, clip.intrinsics)]
        samples["focal_err_default"] = [focal_error(default, clip.intrinsics)]
    if clip.tracks is not None:
        samples.update(_tracks(scene, clip))
    return samples


def summarise(clips: Iterable[Samples]) -> dict[str, float]:
    """One number a name: the median of samples for MEDIANS, else the mean; and `clips`, their number."""
    together: Samples = {}
    count = 0
    for samples in clips:
        count += 1
        for name, values in samples.items():
            together.setdefault(name, []).extend(values)
    result = {
        name: float(np.median(values) if name in MEDIANS else np.mean(values))
        for name, values in together.items()
        if values
    }
    return {**result, "clips": count}


def _tensor(values: np.ndarray, scene: SceneLike) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=scene.device)


def _depth(scene: SceneLike, clip: Clip) -> Samples:
    assert clip.depth is not None and clip.depth_uv is not None
    found = []
    for frame, uv in enumerate(clip.depth_uv):
        # Answers that are not confident are scored as well: leaving them out would be choosing one's own
        # questions.
        depth = depth_at(scene, frame, _tensor(uv[:, 0], scene), _tensor(uv[:, 1], scene)).depth
        found.append(np.maximum(depth.double().cpu().numpy(), 1e-6))
    estimate, truth = np.concatenate(found), np.concatenate(clip.depth)
    scaled, constant = scaled_depth_scores(estimate, truth), scaled_depth_scores(np.ones_like(truth), truth)
    samples = {
        "absrel": [scaled.absrel],
        "absrel_constant": [constant.absrel],
        "delta125": [scaled.delta125],
        "delta125_constant": [constant.delta125],
        "absrel_shift": [scaled_depth_scores(estimate, truth, "scale_shift").absrel],
        "absrel_shift_constant": [scaled_depth_scores(np.ones_like(truth), truth, "scale_shift").absrel],
    }
    if clip.world_from_camera is not None and clip.intrinsics is not None:
        samples.update(_cloud(scene, clip))
    return samples


def _cloud(scene: SceneLike, clip: Clip) -> Samples:
    """All frames' points in the camera of frame 0, against depth lifted with the true camera."""
    assert clip.depth is not None and clip.depth_uv is not None
    assert clip.world_from_camera is not None and clip.intrinsics is not None
    found, true, flat = [], [], []
    for frame, (uv, z) in enumerate(zip(clip.depth_uv, clip.depth)):
        uv, z = uv[::_CLOUD_STRIDE], z[::_CLOUD_STRIDE]
        answers = ask(scene, _tensor(uv[:, 0], scene), _tensor(uv[:, 1], scene), frame, frame, 0)
        found.append(answers.xyz.double().cpu().numpy())
        rays = np.concatenate([uv, np.ones((len(uv), 1))], 1) @ np.linalg.inv(clip.intrinsics).T
        pose = np.linalg.inv(clip.world_from_camera[0]) @ clip.world_from_camera[frame]
        true.append((z[:, None] * rays) @ pose[:3, :3].T + pose[:3, 3])
        flat.append(rays)
    truth = np.concatenate(true)
    return {
        "cloud_l1": [point_cloud_l1(np.concatenate(found), truth)],
        "cloud_l1_constant": [point_cloud_l1(np.concatenate(flat), truth)],
    }


def _camera(scene: SceneLike, clip: Clip) -> Samples:
    assert clip.world_from_camera is not None
    # Frames that could not be placed are the identity: they count as a camera that stood still.
    found = camera_track(scene, 0, POSE_GRID).reference_from_camera[: clip.frames]
    error, still = span_rotation_deg(found, clip.world_from_camera, *clip.span)
    samples = {"rot_deg": [error], "rot_deg_still": [still]}
    if clip.frames >= 3:
        mine = camera_scores(found, clip.world_from_camera)
        none = camera_scores(np.tile(np.eye(4), (clip.frames, 1, 1)), clip.world_from_camera)
        for name in ("ate", "rpe_translation", "rpe_rotation_deg"):
            samples[name], samples[f"{name}_still"] = [getattr(mine, name)], [getattr(none, name)]
    return samples


def _tracks(scene: SceneLike, clip: Clip) -> Samples:
    assert clip.tracks is not None
    truth, start = clip.tracks, clip.tracks.uv[0]
    found = tracks(scene, _tensor(start[:, 0], scene), _tensor(start[:, 1], scene), 0, range(clip.frames))
    uv, seen = found.uv.double().cpu().numpy(), found.visibility.cpu().numpy()
    later = np.ones(truth.visible.shape, bool)
    later[0] = False
    counted = truth.visible & truth.valid & later
    stay = np.broadcast_to(start, uv.shape)
    samples = {
        "track_px": track_pixel_errors(uv, truth.uv, counted, clip.aspect_ratio).tolist(),
        "track_px_still": track_pixel_errors(stay, truth.uv, counted, clip.aspect_ratio).tolist(),
    }
    if (truth.valid & later).any():
        samples["visibility_acc"] = [visibility_accuracy(seen, truth.visible, truth.valid & later)]
        samples["visibility_acc_always"] = [
            visibility_accuracy(np.ones_like(seen), truth.visible, truth.valid & later)
        ]
    if clip.intrinsics is not None:
        xyz = found.xyz.double().cpu().numpy()
        square = np.diag([clip.aspect_ratio, 1.0, 1.0]) @ clip.intrinsics
        k = metric_intrinsics(square, (1.0, clip.aspect_ratio))
        mine = tapvid3d_scores(xyz, seen > 0.5, truth.xyz, truth.visible, k, truth.valid)
        still_xyz = np.broadcast_to(truth.xyz[0], truth.xyz.shape)
        still = tapvid3d_scores(
            still_xyz, np.ones(seen.shape, bool), truth.xyz, truth.visible, k, truth.valid
        )
        for name, one in (("aj", "average_jaccard"), ("apd", "average_within"), ("oa", "occlusion_accuracy")):
            samples[name], samples[f"{name}_still"] = [getattr(mine, one)], [getattr(still, one)]
    return samples
