"""TAPVid-3D: one .npz a video, with JPEG frames, 3D tracks, visibility, queries, intrinsics and extrinsics.

The set counts pixels in raster coordinates (an image is W wide from edge to edge), which is this package's
convention, so its intrinsics are taken as they are. It has no stamps; 30 Hz stand in.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from d4rt_ros.evaluation.readers.files import is_pose
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence, TrueTracks

LAYOUT = "TAPVid-3D"
_RATE_HZ = 30
_KEYS = ("images_jpeg_bytes", "queries_xyt", "tracks_XYZ", "visibility", "fx_fy_cx_cy")


def matches(path: Path) -> bool:
    """True for an .npz file that has the set's arrays, or that cannot be looked into: `read` says why."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "tracks_XYZ.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True


def read(path: Path) -> Sequence:
    """Read one video. Raises DataError for a missing array, shapes that disagree, or unusable poses."""
    name = path.stem
    if not zipfile.is_zipfile(path):
        raise DataError(f"{name}: refused, {path.name} is cut off or no .npz file")
    try:
        with np.load(path) as arrays:
            missing = [key for key in _KEYS if key not in arrays.files]
            if missing:
                raise DataError(f"{name}: refused, no array {', '.join(missing)}")
            jpegs = [bytes(item) for item in arrays["images_jpeg_bytes"]]
            queries, xyz = (
                np.asarray(arrays["queries_xyt"], np.float64),
                np.asarray(arrays["tracks_XYZ"], np.float64),
            )
            visible, numbers = (
                np.asarray(arrays["visibility"], bool),
                np.asarray(arrays["fx_fy_cx_cy"], np.float64),
            )
            to_camera = (
                np.asarray(arrays["extrinsics_w2c"], np.float64) if "extrinsics_w2c" in arrays.files else None
            )
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise error if isinstance(error, DataError) else DataError(f"{name}: refused, {error}") from None
    count = len(jpegs)
    if xyz.shape != (count, len(queries), 3) or visible.shape != xyz.shape[:2] or count < 2:
        raise DataError(
            f"{name}: refused, {count} images, tracks {xyz.shape}, visibility {visible.shape}, "
            f"queries {queries.shape}"
        )
    notes = [f"no stamps: {_RATE_HZ} Hz assumed"]
    known = np.isfinite(queries).all(1) & (queries[:, 2] >= 0) & (queries[:, 2] < count)
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(known)} tracks skipped: query out of the video or NaN")
    if to_camera is not None and (to_camera.shape != (count, 4, 4) or not all(map(is_pose, to_camera))):
        raise DataError(f"{name}: refused, extrinsics_w2c holds what is no rigid motion")
    height, width = _decode(jpegs[0], name).shape[:2]
    fx, fy, cx, cy = numbers
    return Sequence(
        name=name,
        layout=LAYOUT,
        images=Frames(jpegs, lambda data: _decode(data, name)),
        stamps=np.arange(count, dtype=np.int64) * 1_000_000_000 // _RATE_HZ,
        intrinsics=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
        world_from_camera=np.linalg.inv(to_camera) if to_camera is not None else None,
        tracks=TrueTracks(
            xyz[:, known],
            visible[:, known],
            queries[known, :2] / [width, height],
            queries[known, 2].astype(np.int64),
        ),
        notes=tuple(notes),
    )


def _decode(data: bytes, name: str) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # tracks lie in the image as it is stored
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if pixels is None:
        raise DataError(f"{name}: a frame is no readable JPEG")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
