"""Draw docs/images/failures.jpg: of the benchmark's held-out clips, those that the built-in model gets wrong.

A row a clip: its first and its last frame, the last one's true inverse depth, and the model's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.procedural import batch_clip, held_out
from d4rt_ros.evaluation.scores import score_clip
from d4rt_ros.model import SceneLike, load_model
from d4rt_ros.model.precision import select_precision
from d4rt_ros.tasks import depth_map
from d4rt_ros.training.scenes import SceneBatch

EACH = 4  # rows by depth and by rotation
SIDE, STRIP = 128, 16  # pixels of a picture's side, and of its caption
CPU = torch.device("cpu")


def inverse_depth(depth: np.ndarray, brightest: float) -> np.ndarray:
    """[SIDE, SIDE, 3] BGR of depth [H, W]; `brightest`: the inverse depth at the end of the colours."""
    shown = np.clip(255 / np.maximum(depth, 1e-6) / brightest, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(cv2.applyColorMap(shown, cv2.COLORMAP_TURBO), (SIDE, SIDE)))


def row_of(batch: SceneBatch, row: int, scene: SceneLike, caption: str) -> np.ndarray:
    """One clip as four pictures over a caption, BGR uint8."""
    frames = [np.ascontiguousarray(batch.video[row, t].permute(1, 2, 0).numpy()[..., ::-1]) for t in (0, -1)]
    true = batch.depth[row, -1].numpy()
    found = depth_map(scene, scene.num_frames - 1, (int(true.shape[0]), int(true.shape[1]))).depth.numpy()
    seen = np.isfinite(true)
    found = found * np.median(true[seen]) / np.median(found[seen])
    brightest = float(np.quantile(1 / true[seen], 0.98))
    pictures = [cv2.resize(frame, (SIDE, SIDE)) for frame in frames]
    pictures += [inverse_depth(np.where(seen, depth, np.inf), brightest) for depth in (true, found)]
    strip = np.full((STRIP, 4 * SIDE, 3), 255, np.uint8)
    cv2.putText(strip, caption, (4, STRIP - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return np.pad(np.vstack([np.hstack(pictures), strip]), ((0, 0), (4, 4), (0, 0)), constant_values=255)


def main() -> None:
    """Draw the sheet to the path given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=Path("docs/images/failures.jpg"))
    parser.add_argument("--clips", type=int, default=128)
    args = parser.parse_args()
    model = load_model("builtin", precision=select_precision("auto", CPU))
    by_depth: list[tuple[float, np.ndarray]] = []
    by_rotation: list[tuple[float, np.ndarray]] = []
    with torch.inference_mode():
        for batch, row, name in held_out(model.config, args.clips):
            clip = batch_clip(batch, row, name)
            scene = model.encode(clip.video, clip.stamps, clip.aspect_ratio)
            scores = {key: values[0] for key, values in score_clip(scene, clip).items() if values}
            caption = (
                f"{name}  AbsRel {scores['absrel']:.2f} (constant {scores['absrel_constant']:.2f})  "
                f"rotation {scores['rot_deg']:.1f} deg (still {scores['rot_deg_still']:.1f})"
            )
            picture = row_of(batch, row, scene, caption)
            for ranked, key in ((by_depth, "absrel"), (by_rotation, "rot_deg")):
                ranked.append((scores[key], picture))
                ranked.sort(key=lambda pair: -pair[0])
                del ranked[EACH:]
    sheet = np.hstack([np.vstack([picture for _, picture in ranked]) for ranked in (by_depth, by_rotation)])
    args.path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise OSError(f"{args.path} cannot be written")


if __name__ == "__main__":
    main()
