"""KITTI odometry, with or without velodyne, and one drive with velodyne depth drawn into its images.

Odometry: sequences/00 with image_2 or image_0, calib.txt, times.txt, velodyne; poses/00.txt beside sequences.
Also image_02 with depth_velo_u16_256: one rectified colour camera of 2011_09_26 and velodyne depth drawn into
it (16 bits, 256 a metre). Traffic moves, so no tracks are made of depth and poses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d4rt_ros.evaluation.readers.files import (
    Skipped,
    image_size,
    images_in,
    is_pose,
    missing_numbers,
    opencv_matrix,
    read_depth,
    read_numbers,
    read_rgb,
)
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence

LAYOUT = "KITTI odometry"
DEPTH_LAYOUT = "KITTI with velodyne depth"
_RATE_HZ = 10
_MIN_RANGE_M = 1.0
_DEPTH_FOLDER = "depth_velo_u16_256"
_PER_METRE = 256.0
_PUBLISHED_SIZE = (375, 1242)
_PUBLISHED = (721.5377, 721.5377, 609.5593, 172.854)  # P_rect_02 of 2011_09_26


def matches(path: Path) -> bool:
    """True for one sequence folder of either layout."""
    if (path / "image_02").is_dir() and (path / _DEPTH_FOLDER).is_dir():
        return True
    return (path / "calib.txt").is_file() and _camera_folder(path) is not None


def read(path: Path) -> Sequence:
    """Read one sequence. Raises DataError if at least half of its frames are broken."""
    return _read_drawn(path) if (path / "image_02").is_dir() else _read_odometry(path)


def _camera_folder(path: Path) -> Path | None:
    return next((path / name for name in ("image_2", "image_0") if (path / name).is_dir()), None)


def _read_drawn(path: Path) -> Sequence:
    colors = images_in(path / "image_02")
    skipped = Skipped(path.name, len(colors))
    kept = []
    for color in colors:
        if (path / _DEPTH_FOLDER / f"{color.stem}.png").is_file():
            kept.append(color)
        else:
            skipped.add("no depth", color.stem)
    notes = list(skipped.notes())
    try:
        numbers = [int(p.stem) for p in kept]
    except ValueError as error:
        raise DataError(f"{path.name}: image names are no frame numbers: {error}") from None
    if missing_numbers(numbers):
        notes.append(f"{missing_numbers(numbers)} frame numbers are missing")
    notes.append(f"stamps made of frame numbers at {_RATE_HZ} Hz")
    file = path / "camera-intrinsics.txt"
    if file.is_file():
        k = read_numbers(file, 3)
        intrinsics = opencv_matrix(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    elif image_size(kept[0]) == _PUBLISHED_SIZE:
        intrinsics = opencv_matrix(*_PUBLISHED)
        notes.append("no camera-intrinsics.txt: P_rect_02 of 2011_09_26 assumed")
    else:
        raise DataError(
            f"{path.name}: no camera-intrinsics.txt, and images are not those of 2011_09_26 (1242x375)"
        )
    return Sequence(
        name=path.name,
        layout=DEPTH_LAYOUT,
        images=Frames(kept, read_rgb),
        stamps=np.array([number * 1_000_000_000 // _RATE_HZ for number in numbers], np.int64),
        intrinsics=intrinsics,
        depth=Frames(
            [path / _DEPTH_FOLDER / f"{p.stem}.png" for p in kept], lambda p: read_depth(p, _PER_METRE)
        ),
        notes=tuple(notes),
    )


def _calibration(path: Path) -> dict[str, np.ndarray]:
    """Rows `P2: 12 numbers` and `Tr: 12 numbers` of calib.txt as [3, 4]."""
    try:
        rows = (line.split(":", 1) for line in path.read_text("utf-8-sig").splitlines() if ":" in line)
        return {key.strip(): np.array(values.split(), np.float64).reshape(3, 4) for key, values in rows}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def _read_odometry(path: Path) -> Sequence:
    folder = _camera_folder(path)
    if folder is None:
        raise DataError(f"{path.name}: neither image_2 nor image_0")
    colors = images_in(folder)
    projection, camera_from_first, camera_from_lidar = _cameras(path / "calib.txt", "P" + folder.name[-1])
    times = read_numbers(path / "times.txt", 1)[:, 0] if (path / "times.txt").is_file() else None
    beside = (path.parents[1] / "poses" / f"{path.name}.txt", path / "poses.txt", path / f"{path.name}.txt")
    pose_file = next((file for file in beside if file.is_file()), None)
    poses = _poses(pose_file) if pose_file else None
    place = _depth_place(path, camera_from_lidar is not None)
    depth_files = [place[0] / (color.stem + place[1]) for color in colors] if place else []
    skipped = Skipped(path.name, len(colors))
    kept = []
    for i, color in enumerate(colors):
        number = int(color.stem) if color.stem.isdigit() else i
        # A cut-out may keep its frame numbers and have rows for its own frames only.
        pose_row = i if poses is not None and len(poses) == len(colors) else number
        time_row = i if times is not None and len(times) == len(colors) else number
        if poses is not None and (pose_row >= len(poses) or not is_pose(poses[pose_row])):
            skipped.add("no pose, or one that is no rigid motion or holds NaN", color.stem)
        elif times is not None and (time_row >= len(times) or not np.isfinite(times[time_row])):
            skipped.add("no time", color.stem)
        elif place and not depth_files[i].is_file():
            skipped.add("no depth", color.stem)
        else:
            kept.append((i, pose_row, number / _RATE_HZ if times is None else times[time_row]))
    notes = list(skipped.notes())
    if times is None:
        notes.append(f"no times.txt: stamps made of frame numbers at {_RATE_HZ} Hz")
    size = image_size(colors[kept[0][0]])
    k = opencv_matrix(projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2])

    def depth(file: Path) -> np.ndarray:
        if file.suffix == ".png":
            return read_depth(file, _PER_METRE)
        assert camera_from_lidar is not None
        return draw_scan(_scan(file), camera_from_lidar, k, size)

    return Sequence(
        name=path.name,
        layout=LAYOUT,
        images=Frames([colors[i] for i, _, _ in kept], read_rgb),
        stamps=np.array([round(seconds * 1e9) for _, _, seconds in kept], np.int64),
        intrinsics=k,
        depth=Frames([depth_files[i] for i, _, _ in kept], depth) if place else None,
        world_from_camera=poses[[row for _, row, _ in kept]] @ np.linalg.inv(camera_from_first)
        if poses is not None
        else None,
        notes=tuple(notes),
    )


def _cameras(file: Path, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """P [3, 4] of the camera, camera_from_camera_0 [4, 4], camera_from_lidar [4, 4] if there is a row Tr."""
    calibration = _calibration(file)
    if key not in calibration:
        raise DataError(f"{file}: no row {key}")
    projection = calibration[key]
    if projection[0, 0] <= 0 or projection[1, 1] <= 0 or projection[2, 2] != 1:
        raise DataError(f"{file}: row {key} is no projection")
    # x_camera = x_0 + K^-1 P[:, 3]: the rectified cameras differ by a translation only.
    camera_from_first = np.eye(4)
    camera_from_first[:3, 3] = np.linalg.solve(projection[:, :3], projection[:, 3])
    if "Tr" not in calibration:
        return projection, camera_from_first, None
    return projection, camera_from_first, camera_from_first @ np.vstack([calibration["Tr"], [0, 0, 0, 1]])


def _depth_place(path: Path, scans: bool) -> tuple[Path, str] | None:
    """Folder and suffix of depth: scans (if they can be placed), or depth that is drawn already, or None."""
    for folder, suffix, usable in (("velodyne", ".bin", scans), (_DEPTH_FOLDER, ".png", True)):
        if usable and (path / folder).is_dir():
            return path / folder, suffix
    return None


def _poses(path: Path) -> np.ndarray:
    """world_from_camera_0 [N, 4, 4] of rows of 12 numbers."""
    table = read_numbers(path, 12)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = table[:, :12].reshape(-1, 3, 4)
    return poses


def _scan(path: Path) -> np.ndarray:
    """Points [N, 3] in metres of a velodyne .bin (float32 x y z reflectance). Raises DataError."""
    raw = np.fromfile(path, np.float32)
    if raw.size == 0 or raw.size % 4:
        raise DataError(f"{path}: {raw.size} numbers are no velodyne scan")
    return raw.reshape(-1, 4)[:, :3].astype(np.float64)


def draw_scan(
    points: np.ndarray, camera_from_lidar: np.ndarray, k: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Depth image [H, W] float32 metres of points [N, 3]: the nearest in a pixel wins, NaN elsewhere.

    `k` has pixel centres at integer + 0.5, so a pixel is the floor of its coordinates.
    """
    points = points @ camera_from_lidar[:3, :3].T + camera_from_lidar[:3, 3]
    points = points[points[:, 2] > _MIN_RANGE_M]
    pixels = np.floor(points @ k.T / points[:, 2:])[:, :2].astype(np.int64)
    inside = ((pixels >= 0) & (pixels < [size[1], size[0]])).all(1)
    depth = np.full(size, np.inf, np.float32)
    np.minimum.at(depth, (pixels[inside, 1], pixels[inside, 0]), points[inside, 2].astype(np.float32))
    depth[np.isinf(depth)] = np.nan
    return depth
