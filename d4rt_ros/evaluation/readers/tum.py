"""TUM RGB-D: rgb.txt, depth.txt (5000 a metre), groundtruth.txt (tx ty tz qx qy qz qw), associated by time.

Also the short form rgb/N.png, depth/N.png, ground_truth.json (4x4 camera to world), camera_intrinsics.yaml,
in which dense-visual-odometry keeps ten frames of fr1.

Colour is undistorted with the calibration that the data set publishes for each of its three cameras. Depth is
registered to the distorted colour image, so it goes through the same map, without mixing neighbours.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from d4rt_ros.camera import Camera
from d4rt_ros.evaluation.readers.files import (
    Skipped,
    image_size,
    images_in,
    is_pose,
    nearest,
    opencv_matrix,
    read_depth,
    read_numbers,
    read_rgb,
    read_yaml,
    vga_matrix,
)
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence

LAYOUT = "TUM RGB-D"
SHORT_LAYOUT = "TUM RGB-D, short form"
_PER_METRE = 5000.0
_WITHIN_S = 0.02
_RATE_HZ = 30
# Published for the colour cameras at 640x480: fx fy cx cy, k1 k2 p1 p2 k3 (vision.in.tum.de, file formats).
_CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}
_DEFAULT = (525.0, 525.0, 319.5, 239.5)
_DYNAMIC = ("walking", "sitting", "dynamic", "balloon", "crowd", "person", "moving", "synchronous")


def matches(path: Path) -> bool:
    """True for a folder with rgb.txt and groundtruth.txt, or with the short form's ground_truth.json."""
    return (path / "rgb.txt").is_file() or (
        (path / "ground_truth.json").is_file() and (path / "rgb").is_dir()
    )


def read(path: Path) -> Sequence:
    """Read one folder. Raises DataError if at least half of its frames are broken."""
    return _read_standard(path) if (path / "rgb.txt").is_file() else _read_short(path)


def _stamped_files(index: Path) -> list[tuple[float, Path]]:
    """(seconds, file) of every line of rgb.txt or depth.txt, in order of time."""
    try:
        words = [line.split() for line in index.read_text("utf-8-sig").splitlines()]
        return sorted((float(w[0]), index.parent / w[1]) for w in words if w and not w[0].startswith("#"))
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{index}: {error}") from None


def _quaternion_poses(table: np.ndarray) -> np.ndarray:
    """Poses [N, 4, 4] of rows (tx ty tz qx qy qz qw); NaN where the quaternion is none."""
    poses = np.full((len(table), 4, 4), np.nan)
    good = np.isfinite(table).all(1) & (np.abs(np.linalg.norm(table[:, 3:7], axis=1) - 1) < 0.05)
    poses[good] = np.eye(4)
    if good.any():
        poses[good, :3, :3] = Rotation.from_quat(table[good, 3:7]).as_matrix()
    poses[good, :3, 3] = table[good, :3]
    return poses


def _read_standard(path: Path) -> Sequence:
    colors = _stamped_files(path / "rgb.txt")
    times = np.array([t for t, _ in colors])
    with_depth, with_poses = (path / "depth.txt").is_file(), (path / "groundtruth.txt").is_file()
    depths = _stamped_files(path / "depth.txt") if with_depth else []
    depth_of = nearest(np.array([t for t, _ in depths]), times, _WITHIN_S)
    table = read_numbers(path / "groundtruth.txt", 8) if with_poses else np.zeros((0, 8))
    table = table[np.argsort(table[:, 0], kind="stable")]  # some files are put together of parts
    poses = _quaternion_poses(table[:, 1:])
    pose_of = nearest(table[:, 0], times, _WITHIN_S)
    skipped = Skipped(path.name, len(colors))
    kept: list[int] = []
    for i, (_, color) in enumerate(colors):
        if not color.is_file():
            skipped.add("image file missing", color.name)
        elif with_depth and (depth_of[i] < 0 or not depths[depth_of[i]][1].is_file()):
            skipped.add(f"no depth within {_WITHIN_S} s", color.name)
        elif with_poses and pose_of[i] < 0:
            skipped.add(f"no pose within {_WITHIN_S} s", color.name)
        elif with_poses and not is_pose(poses[pose_of[i]]):
            skipped.add("pose is no rigid motion or holds NaN", color.name)
        elif kept and times[i] <= times[kept[-1]]:
            skipped.add("stamp does not rise", color.name)
        else:
            kept.append(i)
    notes = list(skipped.notes())
    camera = _camera(f"{path.parent.name}/{path.name}", image_size(colors[kept[0]][1]), notes)
    return Sequence(
        name=path.name,
        layout=LAYOUT,
        images=Frames([colors[i][1] for i in kept], lambda p: read_rgb(p, camera)),
        stamps=np.array([round(times[i] * 1e6) * 1000 for i in kept], np.int64),
        intrinsics=camera.matrix,
        depth=Frames([depths[depth_of[i]][1] for i in kept], lambda p: read_depth(p, _PER_METRE, camera))
        if with_depth
        else None,
        world_from_camera=poses[pose_of[kept]] if with_poses else None,
        static=not any(word in path.name.lower() for word in _DYNAMIC),
        notes=tuple(notes),
    )


def _camera(name: str, size: tuple[int, int], notes: list[str]) -> Camera:
    """The published camera that the folder's or its parent's name tells (freiburg1, fr1), or the default."""
    found = re.search(r"(?:freiburg|fr)([123])", name.lower())
    if size != (480, 640):
        notes.append(f"images are {size[1]}x{size[0]}: calibration for 640x480 scaled")
    if found is None:
        notes.append("camera unknown by the folder's name: 525, 525, 319.5, 239.5 without distortion assumed")
        return Camera(size, vga_matrix(*_DEFAULT, size))
    numbers, distortion = _CAMERAS[found.group(1)]
    if distortion:
        notes.append(f"images and depth undistorted with the published calibration of fr{found.group(1)}")
    return Camera(size, vga_matrix(*numbers, size), "plumb_bob", distortion)


def _read_short(path: Path) -> Sequence:
    try:
        truth = json.loads((path / "ground_truth.json").read_text("utf-8-sig"))
        calibration = read_yaml(path / "camera_intrinsics.yaml")
        k = np.array(calibration["intrinsics"], np.float64)
        per_metre = 1 / float(calibration["depth_scale"])
        entries = sorted(truth.items(), key=lambda item: int(item[0]))
        poses = [np.array(entry["transformation"], np.float64) for _, entry in entries]
        files = [(path / entry["rgb"], path / entry["depth"]) for _, entry in entries]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, yaml.YAMLError) as error:
        raise DataError(f"{path.name}: ground_truth.json or camera_intrinsics.yaml: {error!r}") from None
    skipped = Skipped(path.name, max(len(entries), len(images_in(path / "rgb"))))
    kept = []
    for i, ((color, depth), pose) in enumerate(zip(files, poses)):
        if not color.is_file() or not depth.is_file():
            skipped.add("image or depth file missing", color.name)
        elif pose.shape != (4, 4) or not is_pose(pose):
            skipped.add("pose is no rigid motion or holds NaN", color.name)
        else:
            kept.append(i)
    notes = [*skipped.notes(), f"stamps made of frame numbers at {_RATE_HZ} Hz"]
    size = image_size(files[kept[0]][0])
    camera = Camera(size, opencv_matrix(k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
    published, distortion = _CAMERAS["1"]
    if (k[0, 0], k[1, 1], k[0, 2]) == published[:3]:
        camera = Camera(size, opencv_matrix(*published), "plumb_bob", distortion)
        notes.append(
            f"fr1's published cy {published[3]} and distortion used in place of the file's cy {k[1, 2]:g}"
        )
    return Sequence(
        name=path.name,
        layout=SHORT_LAYOUT,
        images=Frames([files[i][0] for i in kept], lambda p: read_rgb(p, camera)),
        stamps=np.array([int(entries[i][0]) * 1_000_000_000 // _RATE_HZ for i in kept], np.int64),
        intrinsics=camera.matrix,
        depth=Frames([files[i][1] for i in kept], lambda p: read_depth(p, per_metre, camera)),
        world_from_camera=np.stack([poses[i] for i in kept]),
        static=True,
        notes=tuple(notes),
    )
