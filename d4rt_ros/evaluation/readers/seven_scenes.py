"""7-Scenes: frame-000000.color.png, .depth.png (millimetres), .pose.txt (4x4 camera to world).

The original set publishes no intrinsics; 585, 585, 320, 240 of its depth camera is what the literature uses
for both images. A `camera-intrinsics.txt` (3x3) beside the frames or one folder up takes precedence.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from d4rt_ros.evaluation.readers.files import (
    Skipped,
    image_size,
    is_pose,
    missing_numbers,
    opencv_matrix,
    read_depth,
    read_numbers,
    read_rgb,
    vga_matrix,
)
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence

LAYOUT = "7-Scenes"
_RATE_HZ = 30
_MILLIMETRES = 1000.0
_COLOR = re.compile(r"frame-(\d+)\.color\.(jpg|png)$")


def matches(path: Path) -> bool:
    """True for a folder with frame-N.color images."""
    return path.is_dir() and any(_COLOR.match(p.name) for p in path.glob("frame-*.color.*"))


def read(path: Path) -> Sequence:
    """Read one folder. Raises DataError if at least half of its frames are broken."""
    by_number = {_number(p): p for p in sorted(path.glob("frame-*.color.*")) if _COLOR.match(p.name)}
    colors = [by_number[number] for number in sorted(by_number)]  # one image each, 2 before 10
    skipped = Skipped(path.name, len(colors))
    kept, depths, poses, numbers = [], [], [], []
    for color in colors:
        stem = color.name.split(".")[0]
        depth, pose_file = path / f"{stem}.depth.png", path / f"{stem}.pose.txt"
        if not depth.is_file() or not pose_file.is_file():
            skipped.add("no depth" if not depth.is_file() else "no pose", stem)
            continue
        try:
            pose = read_numbers(pose_file)
        except DataError:
            skipped.add("pose is unreadable", stem)
            continue
        if pose.shape != (4, 4) or not is_pose(pose):
            skipped.add("pose is no rigid motion or holds NaN", stem)
            continue
        kept.append(color)
        depths.append(depth)
        poses.append(pose)
        numbers.append(_number(color))
    notes = list(skipped.notes())
    gaps = missing_numbers(sorted(by_number))
    if gaps:
        notes.append(f"{gaps} frame numbers are missing")
    notes.append(f"stamps made of frame numbers at {_RATE_HZ} Hz")
    return Sequence(
        name=path.name,
        layout=LAYOUT,
        images=Frames(kept, read_rgb),
        stamps=np.array([number * 1_000_000_000 // _RATE_HZ for number in numbers], np.int64),
        intrinsics=_intrinsics(path, image_size(kept[0]), notes),
        depth=Frames(depths, lambda p: read_depth(p, _MILLIMETRES)),
        world_from_camera=np.stack(poses),
        static=True,
        notes=tuple(notes),
    )


def _number(image: Path) -> int:
    found = _COLOR.match(image.name)
    assert found is not None  # who asks has looked
    return int(found.group(1))


def _intrinsics(path: Path, size: tuple[int, int], notes: list[str]) -> np.ndarray:
    for folder in (path, path.parent):
        file = folder / "camera-intrinsics.txt"
        if file.is_file():
            k = read_numbers(file, 3)
            if k.shape != (3, 3) or k[0, 0] <= 0 or k[1, 1] <= 0:
                raise DataError(f"{file}: not a camera matrix")
            return opencv_matrix(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    height, width = size
    notes.append(f"no camera-intrinsics.txt: 585, 585, 320, 240 of 640x480 assumed, for {width}x{height}")
    return vga_matrix(585, 585, 320, 240, size)
