"""Pictures of what the node said, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

WHITE, DARK = (255, 255, 255), (40, 40, 40)


@dataclass
class Seen:
    """What the client kept of the node's outputs.

    Attributes:
        images: [H, W, 3] RGB by stamp, the newest ones.
        depths: images [H, W, 3] and their depths [H, W] float32, oldest first.
        tracks: the newest Tracks message's stamps, ids, uv [T, N, 2] pixels, visibility [T, N].
        path: [N, 3] positions of the camera in the world.
    """

    images: dict[int, np.ndarray] = field(default_factory=dict)
    depths: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    tracks: tuple[list[int], np.ndarray, np.ndarray, np.ndarray] | None = None
    path: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def colourised(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """[H, W] depth to [H, W, 3] RGB: near red, far blue, unknown dark grey."""
    share = np.clip((1.0 / depth - 1.0 / far) / max(1.0 / near - 1.0 / far, 1e-9), 0.0, 1.0)
    known = np.isfinite(depth)
    levels = (255 * np.where(known, share, 0.0)).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    picture[~known] = DARK
    return picture


def scale_bar(height: int, near: float, far: float, unit: str) -> np.ndarray:
    """A bar of the colours with their depths."""
    inverse = np.linspace(1.0 / near, 1.0 / far, height)
    bar = colourised(np.repeat(1.0 / inverse[:, None], 16, axis=1).astype(np.float32), near, far)
    bar = np.hstack([bar, np.full((height, 90, 3), 255, np.uint8)])
    for place in np.linspace(0, height - 1, 5).astype(int):
        text = f"{1.0 / inverse[place]:.2f} {unit}"
        cv2.putText(
            bar, text, (20, min(max(place + 4, 10), height - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.35, DARK, 1
        )
    return bar


def depth_picture(seen: Seen, unit: str, rows: int = 3) -> np.ndarray | None:
    """Images beside their depths, one scale for all; None where nothing has a depth."""
    pairs = [pair for pair in seen.depths if np.isfinite(pair[1]).any()]
    if not pairs:
        return None
    chosen = [pairs[index] for index in np.unique(np.linspace(0, len(pairs) - 1, rows).astype(int))]
    known = np.concatenate([depth[np.isfinite(depth)] for _, depth in chosen])
    near, far = (float(value) for value in np.percentile(known, [2, 98]))
    lines = []
    for image, depth in chosen:
        gap = np.full((len(image), 8, 3), 255, np.uint8)
        bar = scale_bar(len(image), near, far, unit)
        lines.append(np.hstack([image, gap, colourised(depth, near, far), gap, bar]))
        lines.append(np.full((8, lines[0].shape[1], 3), 255, np.uint8))
    return np.vstack(lines[:-1])


def tracks_picture(seen: Seen, zoom: int = 3) -> np.ndarray | None:
    """Tracks of the newest window over its newest frame; trails end in a dot, hollow where it is hidden."""
    if seen.tracks is None:
        return None
    stamps, ids, uv, visibility = seen.tracks
    if stamps[-1] not in seen.images or not len(ids):
        return None
    image = seen.images[stamps[-1]]
    canvas = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    canvas = (canvas * 0.6).astype(np.uint8)
    hues = (ids.astype(np.uint64) * 2654435761 % 180).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 220), np.full_like(hues, 255)], axis=-1)[None]
    colours = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    for point, colour in enumerate(colours.tolist()):
        line = (uv[:, point] + 0.5) * zoom
        line = line[np.isfinite(line).all(axis=-1)]
        if not len(line) or not np.isfinite(uv[-1, point]).all():
            continue
        places = np.round(line * 16).astype(np.int32)
        cv2.polylines(canvas, [places[:, None]], False, colour, 2, cv2.LINE_AA, shift=4)
        cv2.circle(
            canvas,
            tuple(places[-1].tolist()),
            4 * 16,
            colour,
            -1 if visibility[-1, point] > 0.5 else 1,
            cv2.LINE_AA,
            4,
        )
    return canvas


def path_picture(seen: Seen, file: Path, unit: str) -> bool:
    """The camera's path from above and from the side; False where it is not known."""
    path = seen.path
    if len(path) < 2:
        return False
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), dpi=100, layout="constrained")
    for axis, (across, up), title, names in (
        (axes[0], (1, 0), "from above", ("y (left)", "x (forward)")),
        (axes[1], (0, 2), "from the right", ("x (forward)", "z (up)")),
    ):
        axis.plot(path[:, across], path[:, up], "-", color="0.7", linewidth=1)
        dots = axis.scatter(path[:, across], path[:, up], c=np.arange(len(path)), cmap="viridis", s=14)
        axis.plot(
            *path[0, [across, up]], "o", markersize=11, markerfacecolor="none", color="tab:red", label="start"
        )
        axis.set(title=title, xlabel=f"{names[0]}, {unit}", ylabel=f"{names[1]}, {unit}", aspect="equal")
        axis.margins(0.1)
        axis.grid(alpha=0.3)
    axes[0].invert_xaxis()  # left is left
    axes[0].set_adjustable("datalim")
    axes[1].set_adjustable("datalim")
    axes[0].legend()
    figure.colorbar(dots, ax=axes, label="frame")
    figure.suptitle("Path of the camera")
    figure.savefig(file)
    pyplot.close(figure)
    return True


def save_pictures(seen: Seen, folder: Path, metric: bool) -> dict[str, bool]:
    """Write depth.png, tracks.png and camera_path.png; says which there was something to show for."""
    unit = "m" if metric else "units"
    made = {}
    for name, picture in (("depth.png", depth_picture(seen, unit)), ("tracks.png", tracks_picture(seen))):
        made[name] = picture is not None and cv2.imwrite(
            str(folder / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        )
    made["camera_path.png"] = path_picture(seen, folder / "camera_path.png", unit)
    return made
