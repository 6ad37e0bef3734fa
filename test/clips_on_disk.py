"""One scene in the layout of every data set for training, and what may be wrong with it on a disk.

The scene: a camera that glides past a wall, and in the sets that have moving things a disc in front of it
that glides as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

T, H, W = 6, 48, 64
F = 50.0  # pixels
WALL, DISC = 4.0, 2.0  # metres
STEP, DISC_STEP = 0.05, 0.04  # metres a frame, to the right


def eye(t: int) -> np.ndarray:
    return np.array([STEP * t, 0.0, 0.0])


def disc_at(t: int) -> np.ndarray:
    return np.array([DISC_STEP * t, 0.0, DISC])


def render(disc: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours [T, H, W, 3], depth [T, H, W] and disc mask; the first camera's frame is the world's."""
    y, x = np.meshgrid((np.arange(H) + 0.5 - H / 2) / F, (np.arange(W) + 0.5 - W / 2) / F, indexing="ij")
    masks = [np.hypot(x * DISC + eye(t)[0] - disc_at(t)[0], y * DISC) < 0.3 for t in range(T)]
    mask = np.stack(masks) & disc
    depth = np.where(mask, DISC, WALL)
    colour = np.zeros((T, H, W, 3), np.uint8)
    for t in range(T):
        wall = 128 + 100 * np.sin(5 * (x * WALL + eye(t)[0])) * np.cos(5 * y * WALL)
        colour[t] = np.where(mask[t], 255, wall)[..., None]
    return colour, depth, mask


def write_rgbd(root: Path) -> None:
    colour, depth, _ = render(disc=False)
    for name in ("color", "depth", "pose", "intrinsic"):
        (root / name).mkdir(parents=True)
    k = np.eye(4)
    k[0, 0] = k[1, 1] = F
    k[0, 2], k[1, 2] = W / 2 - 0.5, H / 2 - 0.5
    np.savetxt(root / "intrinsic" / "intrinsic_color.txt", k)
    for t in range(T):
        cv2.imwrite(str(root / "color" / f"{t}.jpg"), colour[t])
        cv2.imwrite(str(root / "depth" / f"{t}.png"), (depth[t] * 1000).astype(np.uint16))
        pose = np.eye(4)
        pose[:3, 3] = eye(t)
        np.savetxt(root / "pose" / f"{t}.txt", pose)


def write_tartanair(root: Path) -> None:
    colour, depth, _ = render(disc=False)
    focal = 320.0  # fixed for the set, so depth is scaled until the picture is that of F pixels
    rows = []
    for name in ("image_left", "depth_left"):
        (root / name).mkdir(parents=True)
    for t in range(T):
        big = cv2.resize(colour[t], (640, 480), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(root / "image_left" / f"{t:06d}_left.png"), big)
        near = cv2.resize(depth[t], (640, 480), interpolation=cv2.INTER_NEAREST) * focal / (F * 640 / W)
        np.save(root / "depth_left" / f"{t:06d}_left_depth.npy", near.astype(np.float32))
        rows.append([0, eye(t)[0], 0, 0, 0, 0, 1])  # right is the second axis of north-east-down
    np.savetxt(root / "pose_left.txt", rows)


def write_movi(root: Path) -> None:
    colour, depth, mask = render(disc=True)
    root.mkdir(parents=True)
    y, x = np.meshgrid((np.arange(H) + 0.5 - H / 2) / F, (np.arange(W) + 0.5 - W / 2) / F, indexing="ij")
    blender = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0])).as_quat()[[3, 0, 1, 2]].tolist()
    for t in range(T):
        cv2.imwrite(str(root / f"rgba_{t:05d}.png"), colour[t])
        cv2.imwrite(str(root / f"segmentation_{t:05d}.png"), mask[t].astype(np.uint8))
        distance = (depth[t] * np.sqrt(1 + x**2 + y**2) / 10 * 65535).round().astype(np.uint16)
        cv2.imwrite(str(root / f"depth_{t:05d}.tiff"), distance)
    instance = {"positions": [disc_at(t).tolist() for t in range(T)], "quaternions": [[1, 0, 0, 0]] * T}
    camera = {
        "positions": [eye(t).tolist() for t in range(T)], "quaternions": [blender] * T,
        "focal_length": F / W * 32.0, "sensor_width": 32.0,
    }  # fmt: skip
    values = {"metadata": {"depth_range": [0.0, 10.0]}, "camera": camera, "instances": [instance]}
    (root / "metadata.json").write_text(json.dumps(values))


def write_pointodyssey(root: Path) -> None:
    colour, depth, mask = render(disc=True)
    for name in ("rgbs", "depths"):
        (root / name).mkdir(parents=True)
    wall = np.stack(np.meshgrid(np.linspace(-2, 2, 15), np.linspace(-1.5, 1.5, 11), [WALL]), -1).reshape(
        -1, 3
    )
    angle = np.arange(8) * np.pi / 4
    rim = np.stack([0.2 * np.cos(angle), 0.2 * np.sin(angle), np.zeros(8)], -1)
    tracks = np.stack([np.concatenate([wall, rim + disc_at(t)]) for t in range(T)])
    k = np.tile(np.array([[F, 0, W / 2 - 0.5], [0, F, H / 2 - 0.5], [0, 0, 1]]), (T, 1, 1))
    extrinsics = np.tile(np.eye(4), (T, 1, 1))
    seen = np.zeros(tracks.shape[:2], bool)
    for t in range(T):
        extrinsics[t, :3, 3] = -eye(t)
        xyz = tracks[t] - eye(t)
        u = np.floor(xyz[:, 0] / xyz[:, 2] * F + W / 2).astype(int)
        v = np.floor(xyz[:, 1] / xyz[:, 2] * F + H / 2).astype(int)
        inside = (u >= 0) & (u < W) & (v >= 0) & (v < H)
        seen[t] = inside & (xyz[:, 2] < depth[t][v.clip(0, H - 1), u.clip(0, W - 1)] + 0.1)
        cv2.imwrite(str(root / "rgbs" / f"rgb_{t:05d}.jpg"), colour[t])
        cv2.imwrite(
            str(root / "depths" / f"depth_{t:05d}.png"), (depth[t] * 65.535).round().astype(np.uint16)
        )
    np.savez(root / "anno.npz", trajs_3d=tracks, visibs=seen, valids=np.ones_like(seen), intrinsics=k,
             extrinsics=extrinsics)  # fmt: skip


WRITERS: dict[str, Callable[[Path], None]] = {
    "rgbd": write_rgbd, "tartanair": write_tartanair, "movi": write_movi, "pointodyssey": write_pointodyssey,
}  # fmt: skip


def damage_missing(kind: str, root: Path) -> None:
    name = {"rgbd": "color/2.jpg", "tartanair": "image_left/000002_left.png", "movi": "rgba_00002.png",
            "pointodyssey": "rgbs/rgb_00002.jpg"}[kind]  # fmt: skip
    (root / name).unlink()


def damage_poses(kind: str, root: Path) -> None:
    if kind == "rgbd":
        for t in range(T):
            np.savetxt(root / "pose" / f"{t}.txt", np.full((4, 4), -np.inf))
    elif kind == "tartanair":
        rows = np.loadtxt(root / "pose_left.txt")
        rows[2, 0] = np.nan
        np.savetxt(root / "pose_left.txt", rows)
    elif kind == "movi":
        values = json.loads((root / "metadata.json").read_text())
        values["camera"]["positions"][2][0] = float("nan")
        (root / "metadata.json").write_text(json.dumps(values))
    else:
        values = dict(np.load(root / "anno.npz"))
        values["extrinsics"][2, 0, 0] = np.nan
        np.savez(root / "anno.npz", **values)


def damage_depth(kind: str, root: Path) -> None:
    """Depth a thousand times too small, or too large where the file cannot hold less."""
    for path in [*root.glob("depth*/*"), *root.glob("depth_*.tiff")]:
        if path.suffix == ".npy":
            np.save(path, np.load(path) / 1000)
        else:
            raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), np.minimum(raw, 2) if kind == "pointodyssey" else raw // 1000)
