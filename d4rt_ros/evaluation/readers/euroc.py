"""EuRoC MAV: mav0/cam0/data.csv, sensor.yaml, mav0/state_groundtruth_estimate0/data.csv; no depth.

Images are undistorted (radial-tangential or equidistant, as sensor.yaml says) at unchanged intrinsics.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from d4rt_ros.camera import Camera
from d4rt_ros.evaluation.readers.files import (
    Skipped,
    is_pose,
    nearest,
    opencv_matrix,
    read_numbers,
    read_rgb,
    read_yaml,
)
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence

LAYOUT = "EuRoC"
_WITHIN_NS = 5_000_000
_MODELS = {"radial-tangential": "plumb_bob", "radtan": "plumb_bob", "equidistant": "equidistant"}


def matches(path: Path) -> bool:
    """True for a folder that holds mav0/cam0/data.csv, or is mav0."""
    return any((root / "cam0" / "data.csv").is_file() for root in (path / "mav0", path))


def read(path: Path) -> Sequence:
    """Read one recording. Raises DataError if at least half of its frames are broken."""
    root = path / "mav0" if (path / "mav0").is_dir() else path
    name = path.name if path.name != "mav0" else path.resolve().parent.name
    camera, body_from_camera = _camera(root / "cam0" / "sensor.yaml")
    stamps, files = _images(root / "cam0")
    truth = next((f for f in sorted(root.glob("state_groundtruth_estimate*/data.csv"))), None)
    pose_of, poses = np.zeros(len(stamps), int), np.zeros((0, 4, 4))
    if truth is not None:
        table_stamps, poses = _ground_truth(truth)
        pose_of = nearest(table_stamps, stamps, _WITHIN_NS)
    skipped = Skipped(name, len(files))
    kept = []
    for i, file in enumerate(files):
        if not file.is_file():
            skipped.add("image file missing", file.name)
        elif truth is not None and pose_of[i] < 0:
            skipped.add("no pose within 5 ms", file.name)
        elif truth is not None and not is_pose(poses[pose_of[i]]):
            skipped.add("pose is no rigid motion or holds NaN", file.name)
        else:
            kept.append(i)
    notes = list(skipped.notes())
    if camera.distorted:
        notes.append("images undistorted with sensor.yaml")
    return Sequence(
        name=name,
        layout=LAYOUT,
        images=Frames([files[i] for i in kept], lambda p: read_rgb(p, camera)),
        stamps=stamps[kept],
        intrinsics=camera.matrix,
        world_from_camera=poses[pose_of[kept]] @ body_from_camera if truth is not None else None,
        static=True,
        notes=tuple(notes),
    )


def _camera(path: Path) -> tuple[Camera, np.ndarray]:
    """The camera and body_from_camera [4, 4] of sensor.yaml."""
    try:
        sensor = read_yaml(path)
        width, height = sensor["resolution"]
        named = sensor.get("distortion_model", "radtan")
        if named not in _MODELS:
            raise ValueError(f"distortion_model is {named!r}, understood are {', '.join(_MODELS)}")
        model = _MODELS[named]
        coefficients = tuple(float(c) for c in sensor.get("distortion_coefficients", ()))
        camera = Camera(
            (height, width), opencv_matrix(*map(float, sensor["intrinsics"])), model, coefficients
        )
        body_from_camera = np.array(sensor["T_BS"]["data"], np.float64).reshape(4, 4)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {error!r}") from None
    if not is_pose(body_from_camera):
        raise DataError(f"{path}: T_BS is no rigid motion")
    return camera, body_from_camera


def _images(folder: Path) -> tuple[np.ndarray, list[Path]]:
    """Stamps [N] in ns and files of data.csv, rising."""
    try:
        lines = [line.split(",") for line in (folder / "data.csv").read_text("utf-8-sig").splitlines()]
        rows = sorted((_stamp(w[0]), w[1].strip()) for w in lines if len(w) > 1 and not w[0].startswith("#"))
    except (OSError, ValueError, ArithmeticError) as error:
        raise DataError(f"{folder / 'data.csv'}: {error}") from None
    return np.array([stamp for stamp, _ in rows], np.int64), [folder / "data" / file for _, file in rows]


def _ground_truth(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stamps [N], ns, and world_from_body [N, 4, 4] of rows (stamp, x y z, qw qx qy qz); NaN if broken."""
    table = read_numbers(path, 8)
    # float64 holds 1.4e18 ns to 256 ns only; integers are read apart.
    words = [line.split(",")[0] for line in path.read_text("utf-8-sig").splitlines()]
    try:
        stamps = np.array([_stamp(word) for word in words if word.strip() and word[0] != "#"], np.int64)
    except (ValueError, ArithmeticError) as error:
        raise DataError(f"{path}: a stamp is no number of nanoseconds: {error!r}") from None
    poses = np.full((len(table), 4, 4), np.nan)
    good = np.isfinite(table[:, 1:8]).all(1) & (np.abs(np.linalg.norm(table[:, 4:8], axis=1) - 1) < 0.05)
    poses[good] = np.eye(4)
    if good.any():
        poses[good, :3, :3] = Rotation.from_quat(table[good][:, [5, 6, 7, 4]]).as_matrix()
    poses[good, :3, 3] = table[good, 1:4]
    order = np.argsort(stamps, kind="stable")
    return stamps[order], poses[order]


def _stamp(word: str) -> int:
    """Nanoseconds, exactly, also where they were written with a point."""
    return int(Decimal(word))
