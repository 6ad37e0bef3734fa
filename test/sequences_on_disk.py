"""A tiny recording of a box before a wall, written in the layout of every data set that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from d4rt_ros.evaluation.readers import open_sequences
from d4rt_ros.evaluation.sequence import Sequence

SIZE = (48, 64)
# Pixel centres at integers, as the data sets write it; this package's K adds half a pixel.
FX, FY, CX, CY = 60.0, 58.0, 30.0, 25.0
K = np.array([[FX, 0, CX + 0.5], [0, FY, CY + 0.5], [0, 0, 1]])
WORLD = Rotation.from_euler("xyz", [30, -20, 110], degrees=True).as_matrix()
COUNT = 8


def read_one(path: Path) -> Sequence:
    """The only sequence there."""
    (sequence,) = open_sequences(path)
    return sequence


def poses(count: int = COUNT) -> np.ndarray:
    """world_from_camera [T, 4, 4]: sideways, forward, a slow turn; the world is not the first camera."""
    out = np.tile(np.eye(4), (count, 1, 1))
    for i in range(count):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_euler("y", -1.5 * i, degrees=True).as_matrix()
        local[:3, 3] = [0.06 * i, 0.01 * i, 0.05 * i]
        out[i, :3, :3] = WORLD @ local[:3, :3]
        out[i, :3, 3] = WORLD @ local[:3, 3] + [1, 2, 3]
    return out


def depths(count: int = COUNT) -> np.ndarray:
    """[T, H, W] metres: a wall 3 m before the first camera and a box at 1.5 m."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    ray = np.stack([(columns - CX) / FX, (rows - CY) / FY, np.ones(SIZE)], -1)
    out = []
    for pose in poses(count):
        turned = ray @ (WORLD.T @ pose[:3, :3]).T
        at = WORLD.T @ (pose[:3, 3] - [1, 2, 3])
        box, wall = (1.5 - at[2]) / turned[..., 2], (3.0 - at[2]) / turned[..., 2]
        hit = at[:2] + box[..., None] * turned[..., :2]
        out.append(np.where((np.abs(hit) < 0.35).all(-1), box, wall))
    return np.stack(out).astype(np.float32)


def images(count: int = COUNT) -> np.ndarray:
    """[T, H, W, 3] uint8; red is the frame's number times ten, green and blue the place."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack(
        [np.stack([np.full(SIZE, 10 * i), rows * 5, columns * 4], -1) for i in range(count)]
    ).astype(np.uint8)


def write_rgb(path: Path, image: np.ndarray) -> None:
    """Save [H, W, 3] RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_depth(path: Path, depth: np.ndarray, per_metre: float) -> None:
    """Save [H, W] metres as 16 bits, NaN as 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.round(np.nan_to_num(depth) * per_metre).astype(np.uint16))


def seven_scenes(folder: Path, count: int = COUNT, per_metre: float = 1000.0) -> Path:
    """7-Scenes style, with intrinsics."""
    for i, (image, depth, pose) in enumerate(zip(images(count), depths(count), poses(count))):
        write_rgb(folder / f"frame-{i:06d}.color.png", image)
        write_depth(folder / f"frame-{i:06d}.depth.png", depth, per_metre)
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    (folder / "camera-intrinsics.txt").write_text(f"{FX} 0 {CX}\n0 {FY} {CY}\n0 0 1\n")
    return folder


def quaternion(pose: np.ndarray) -> np.ndarray:
    """(qx qy qz qw)."""
    return Rotation.from_matrix(pose[:3, :3]).as_quat()


def tum(folder: Path, count: int = COUNT) -> Path:
    """TUM RGB-D as downloaded: colour at 30 Hz, depth 8 ms later, mocap at 100 Hz."""
    rgb, depth_lines = ["# color images"], ["# depth maps"]
    for i, (image, depth) in enumerate(zip(images(count), depths(count))):
        t = 1305031452.791720 + i / 30
        rgb.append(f"{t:.6f} rgb/{t:.6f}.png")
        depth_lines.append(f"{t + 0.008:.6f} depth/{t + 0.008:.6f}.png")
        write_rgb(folder / "rgb" / f"{t:.6f}.png", image)
        write_depth(folder / "depth" / f"{t + 0.008:.6f}.png", depth, 5000)
    truth = ["# timestamp tx ty tz qx qy qz qw"]
    for i, pose in enumerate(poses(count)):
        for late in (-0.011, 0.001, 0.013):
            numbers = [*pose[:3, 3], *quaternion(pose)]
            truth.append(f"{1305031452.791720 + i / 30 + late:.4f} " + " ".join(f"{x:.9f}" for x in numbers))
    (folder / "rgb.txt").write_text("\n".join(rgb))
    (folder / "depth.txt").write_text("\n".join(depth_lines))
    (folder / "groundtruth.txt").write_text("\n".join(truth))
    return folder


def tum_short(folder: Path, count: int = COUNT) -> Path:
    """rgb/N.png, depth/N.png, ground_truth.json, camera_intrinsics.yaml."""
    truth = {}
    for i, (image, depth, pose) in enumerate(zip(images(count), depths(count), poses(count)), start=1):
        write_rgb(folder / f"rgb/{i}.png", image)
        write_depth(folder / f"depth/{i}.png", depth, 5000)
        truth[str(i)] = {"rgb": f"rgb/{i}.png", "depth": f"depth/{i}.png", "transformation": pose.tolist()}
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    (folder / "camera_intrinsics.yaml").write_text(
        f"intrinsics:\n  - [{FX}, 0.0, {CX}]\n  - [0.0, {FY}, {CY}]\n  - [0.0, 0.0, 1.0]\n"
        "depth_scale: 0.0002\n"
    )
    return folder


# camera (optical) seen from the body of a drone
BODY_FROM_CAMERA = np.array([[0.0, 0, 1, 0.02], [-1, 0, 0, -0.06], [0, -1, 0, 0.01], [0, 0, 0, 1]])
EUROC_START = 1403636579763555584


def euroc(folder: Path, count: int = COUNT, distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> Path:
    """EuRoC, the truth at four times the rate of the camera."""
    cam = folder / "mav0" / "cam0"
    lines = ["#timestamp [ns],filename"]
    for i, image in enumerate(images(count)):
        stamp = EUROC_START + i * 50_000_000
        lines.append(f"{stamp},{stamp}.png")
        write_rgb(cam / "data" / f"{stamp}.png", image)
    (cam / "data.csv").write_text("\r\n".join(lines))
    (cam / "sensor.yaml").write_text(
        f"sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: {BODY_FROM_CAMERA.ravel().tolist()}\n"
        f"resolution: [{SIZE[1]}, {SIZE[0]}]\ncamera_model: pinhole\nintrinsics: [{FX}, {FY}, {CX}, {CY}]\n"
        f"distortion_model: radial-tangential\ndistortion_coefficients: {list(distortion)}\n"
    )
    truth = ["#timestamp, p_RS_R_x [m], ..., q_RS_w [], ..."]
    for i, pose in enumerate(poses(count)):
        body = pose @ np.linalg.inv(BODY_FROM_CAMERA)
        x, y, z, w = quaternion(body)
        for late in (0, 12_500_000, 25_000_000):
            stamp = EUROC_START + i * 50_000_000 + late
            truth.append(
                f"{stamp},"
                + ",".join(f"{n:.9f}" for n in [*body[:3, 3], w, x, y, z, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            )
    out = folder / "mav0" / "state_groundtruth_estimate0"
    out.mkdir(parents=True)
    (out / "data.csv").write_text("\n".join(truth))
    return folder


# camera 2 stands 6 cm to the left of camera 0, and the lidar looks along x, z up
BASELINE = 0.06
CAMERA_FROM_LIDAR = np.array([[0.0, -1, 0, 0.01], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])


def kitti(root: Path, count: int = COUNT, velodyne: bool = True, with_poses: bool = True) -> Path:
    """KITTI odometry, sequence 07, depth ten times the rest's so that traffic distances come out."""
    folder = root / "sequences" / "07"
    for i, image in enumerate(images(count)):
        write_rgb(folder / "image_2" / f"{i:06d}.png", image)
    to_2 = np.eye(4)
    to_2[0, 3] = BASELINE
    rows = {
        "P0": [FX, 0, CX, 0, 0, FY, CY, 0, 0, 0, 1, 0],
        "P2": [FX, 0, CX, FX * BASELINE, 0, FY, CY, 0, 0, 0, 1, 0],
        "Tr": CAMERA_FROM_LIDAR.ravel().tolist(),
    }
    (folder / "calib.txt").write_text("\n".join(f"{k}: {' '.join(map(str, v))}" for k, v in rows.items()))
    (folder / "times.txt").write_text("\n".join(f"{0.1037 * i:.6e}" for i in range(count)))
    if with_poses:
        (root / "poses").mkdir(parents=True, exist_ok=True)
        first = [(pose @ to_2)[:3].ravel() for pose in poses(count)]
        np.savetxt(root / "poses" / "07.txt", np.stack(first))
    if velodyne:
        (folder / "velodyne").mkdir()
        turn, shift = CAMERA_FROM_LIDAR[:, :3], CAMERA_FROM_LIDAR[:, 3]
        for i, depth in enumerate(depths(count)):
            rows_, columns = np.mgrid[: SIZE[0], : SIZE[1]]
            ray = np.stack([(columns - CX) / FX, (rows_ - CY) / FY, np.ones(SIZE)], -1)
            camera_2 = (ray * 10 * depth[..., None]).reshape(-1, 3)
            lidar = (camera_2 - [BASELINE, 0, 0] - shift) @ turn
            behind = np.array([[-20.0, 0, 0], [500.0, 900, 0]])
            scan = np.concatenate([lidar[::3], behind])
            np.c_[scan, np.zeros(len(scan))].astype(np.float32).tofile(folder / "velodyne" / f"{i:06d}.bin")
    return root


def kitti_drawn(folder: Path, count: int = COUNT) -> Path:
    """image_02 and depth_velo_u16_256, with intrinsics."""
    for i, (image, depth) in enumerate(zip(images(count), depths(count))):
        sparse = np.where(np.arange(depth.size).reshape(depth.shape) % 7 == 0, 10 * depth, np.nan)
        write_rgb(folder / "image_02" / f"{i:010d}.png", image)
        write_depth(folder / "depth_velo_u16_256" / f"{i:010d}.png", sparse, 256)
    (folder / "camera-intrinsics.txt").write_text(f"{FX} 0 {CX}\n0 {FY} {CY}\n0 0 1\n")
    return folder


def tapvid3d(path: Path, count: int = COUNT, **replaced: object) -> Path:
    """One TAPVid-3D video of three points: two on the wall, one that is hidden from the third frame on."""
    world = np.array([[0.2, 0.1, 3.0], [-0.5, 0.3, 3.0], [0.1, 0.1, 1.5]]) @ WORLD.T + [1, 2, 3]
    to_camera = np.linalg.inv(poses(count))
    xyz = np.einsum("tij,nj->tni", to_camera[:, :3, :3], world) + to_camera[:, None, :3, 3]
    visible = np.ones((count, 3), bool)
    visible[2:, 2] = False
    pixels = xyz[0, :, :2] / xyz[0, :, 2:] * [FX, FY] + [CX + 0.5, CY + 0.5]
    arrays = {
        "images_jpeg_bytes": np.array(
            [cv2.imencode(".jpg", im[..., ::-1])[1].tobytes() for im in images(count)]
        ),
        "queries_xyt": np.c_[pixels, np.zeros(3)],
        "tracks_XYZ": xyz,
        "visibility": visible,
        "fx_fy_cx_cy": np.array([FX, FY, CX + 0.5, CY + 0.5]),
        "extrinsics_w2c": to_camera,
        **replaced,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path
