"""Draw docs/images/scenes.jpg: procedural clips, first and last frame and inverse depth of the last."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from d4rt_ros.training.scenes import ProceduralScenes, SceneBatch, SceneRecipe

ROWS, COLUMNS, TILE = 6, 3, (144, 108)  # clips down and across; width and height of one picture in pixels


def row_of(batch: SceneBatch, clip: int) -> np.ndarray:
    """One clip as three pictures side by side, BGR uint8."""
    frames = [batch.video[clip, t].permute(1, 2, 0).numpy()[..., ::-1] for t in (0, -1)]
    inverse = 1 / batch.depth[clip, -1].numpy()
    shown = np.clip(255 * inverse / np.quantile(inverse, 0.98), 0, 255).astype(np.uint8)
    pictures = [*frames, cv2.applyColorMap(shown, cv2.COLORMAP_TURBO)]
    small = [cv2.resize(np.ascontiguousarray(x), TILE, interpolation=cv2.INTER_AREA) for x in pictures]
    return np.pad(np.hstack(small), ((2, 2), (3, 3), (0, 0)), constant_values=255)


def main() -> None:
    """Draw the sheet to the path given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=Path("docs/images/scenes.jpg"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    scenes = ProceduralScenes(SceneRecipe(size=(2 * TILE[1], 2 * TILE[0])))
    batch = scenes.sample(ROWS * COLUMNS, torch.Generator().manual_seed(args.seed))
    clips = [row_of(batch, clip) for clip in range(ROWS * COLUMNS)]
    sheet = np.vstack([np.hstack(clips[i : i + COLUMNS]) for i in range(0, len(clips), COLUMNS)])
    args.path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise OSError(f"{args.path} cannot be written")


if __name__ == "__main__":
    main()
