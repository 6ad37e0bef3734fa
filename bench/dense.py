"""What Algorithm 1 saves: queries for every pixel of every frame, against one track a pixel.

`python -m bench.dense [--clips 4] [--quick]`

Procedural scenes indoors (rooms, corridors, tables) with little, medium and much motion of camera and
things, 48 frames of 64x64, answered exactly by the oracle. Outdoors is shown apart: much of it is sky. Then
the built-in network on a window of its own, for the share of the time that is decoding.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor

from bench import machine
from d4rt_ros.model import Answers, Queries, SceneLike, load_model
from d4rt_ros.model.precision import select_device, select_precision
from d4rt_ros.tasks import DenseProgress, dense_chunks
from d4rt_ros.training.oracle import OracleScene
from d4rt_ros.training.scenes import MOTION_LEVELS, ProceduralScenes, SceneRecipe

Places = tuple[float, float, float, float]

_FRAMES, _SIZE = 48, (64, 64)
_INDOORS = (0.4, 0.3, 0.3, 0.0)
_OUTDOORS = (0.0, 0.0, 0.0, 1.0)
_SEED = 2_000_000  # training draws its seeds above 2^32


class TimedScene:
    """A scene that adds up the seconds spent in `decode`."""

    def __init__(self, scene: SceneLike) -> None:
        """Wrap a scene."""
        self._scene = scene
        self.frames, self.stamps, self.num_frames = scene.frames, scene.stamps, scene.num_frames
        self.image_size, self.device = scene.image_size, scene.device
        self.seconds = 0.0

    def decode(self, queries: Queries) -> Answers:
        """Decode, and wait for the device before and after."""
        _wait(self.device)
        start = time.perf_counter()
        answers = self._scene.decode(queries)
        _wait(self.device)
        self.seconds += time.perf_counter() - start
        return answers


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def track_all(scene: SceneLike) -> DenseProgress:
    """The counts of Algorithm 1 on one clip, every pixel."""
    progress = None
    for chunk in dense_chunks(scene):
        progress = chunk.progress
    assert progress is not None
    return progress


def run_level(places: Places, level: str, clips: int, device: torch.device) -> list[DenseProgress]:
    """The counts for `clips` clips with a named amount of motion."""
    recipe = SceneRecipe(frames=_FRAMES, size=_SIZE, places=places).with_motion(level)
    results = []
    for clip in range(clips):
        batch = ProceduralScenes(recipe, device=device).sample(1, torch.Generator().manual_seed(_SEED + clip))
        results.append(track_all(OracleScene(batch)))
    return results


def reduction(results: list[DenseProgress]) -> float:
    """Queries of the naive way over those spent, all clips together."""
    return sum(r.naive_queries for r in results) / sum(r.queries for r in results)


def worst(results: list[DenseProgress]) -> float:
    """The smallest reduction of one clip."""
    return min(r.naive_queries / r.queries for r in results)


def report(name: str, results: list[DenseProgress]) -> None:
    """Print one level of motion."""
    print(f"{name:8} {reduction(results):6.2f} times fewer, worst clip {worst(results):6.2f}", flush=True)


def decode_share(device: torch.device, precision: str, seconds: float) -> dict[str, object]:
    """How much of Algorithm 1's time the built-in network decodes, on one window, for `seconds` or so."""
    model = load_model("builtin", device, select_precision(precision, device))
    recipe = SceneRecipe(frames=model.config.frames, size=model.config.image_size, places=_INDOORS)
    video: Tensor = ProceduralScenes(recipe).sample(1, torch.Generator().manual_seed(_SEED)).video[0]
    scene = TimedScene(model.encode(video))
    for _ in dense_chunks(scene, batch_queries=64):  # one small batch warms up
        break
    scene.seconds = 0.0
    start = time.perf_counter()
    progress = DenseProgress(0, 1, 0, 0, 0)
    for chunk in dense_chunks(scene):
        progress = chunk.progress
        if time.perf_counter() - start > seconds:
            break
    _wait(device)
    total = time.perf_counter() - start
    return {
        "decode_share": scene.seconds / total,
        "network_reduction": progress.covered * scene.num_frames / progress.queries,
        "network_coverage": progress.coverage,
        "network_queries_per_second": progress.queries / total,
    }


def main() -> None:
    """Print progress, then one line of JSON."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--clips", type=int, default=4, help="clips a level of motion")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--quick", action="store_true", help="one clip a level")
    args = parser.parse_args()
    device = select_device(args.device)
    clips = 1 if args.quick else args.clips
    start = time.perf_counter()
    levels = {}
    for name in MOTION_LEVELS:
        levels[name] = run_level(_INDOORS, name, clips, device)
        report(name, levels[name])
    outdoors = run_level(_OUTDOORS, "medium", 1 if args.quick else 2, device)
    report("outdoors", outdoors)
    everything = [r for results in (*levels.values(), outdoors) for r in results]
    result: dict[str, object] = {
        **machine.describe(device),
        "clips": clips,
        "reduction": min(reduction(levels["little"]), reduction(levels["medium"])),
        **{f"reduction_{name}": reduction(results) for name, results in levels.items()},
        **{f"reduction_{name}_worst": worst(results) for name, results in levels.items()},
        "reduction_outdoors_medium": reduction(outdoors),
        "queries": sum(r.queries for r in everything),
        "naive_queries": sum(r.naive_queries for r in everything),
        "coverage": min(r.coverage for r in everything),
        **decode_share(device, args.precision, 5.0 if args.quick else 30.0),
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(machine.rounded(result)))


if __name__ == "__main__":
    main()
