"""How fast are messages made and read? `python -m bench.convert`; needs the environment of the node.

Each conversion is timed against a plain copy of the same bytes (numpy's, into new memory), in turns, and the
medians are divided. Keys of the last line: image_in_ratio (the slowest encoding of a 640x480 colour camera),
image_out_ratio (a depth image of that size), cloud_ratio (300,000 points of x y z rgb confidence).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from d4rt_ros import conversions
from d4rt_ros.node.messages import RclpyMessages

ROUNDS = 60
HEIGHT, WIDTH, POINTS = 480, 640, 300_000


def compare(work: Callable[[], Any], bytes_of: np.ndarray, rounds: int = ROUNDS) -> tuple[float, float]:
    """Median milliseconds of the work and of a copy of these bytes, taken in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for taken, call in zip(times, (work, bytes_of.copy)):
            start = time.perf_counter()
            kept = call()
            taken.append(1e3 * (time.perf_counter() - start))
            del kept
    return float(np.median(times[0])), float(np.median(times[1]))


def main() -> None:
    """Measure, print a table, then one line of JSON."""
    random = np.random.default_rng(0)
    types = RclpyMessages()
    results: dict[str, tuple[float, float]] = {}
    for encoding, channels in (("rgb8", 3), ("bgr8", 3), ("rgba8", 4), ("bgra8", 4)):
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)
        message = conversions.rgb_image(types, 1, "camera", pixels[:, :, :3])
        message.encoding, message.step, message.data = encoding, WIDTH * channels, types.array("B", pixels)
        results[f"image in, {encoding}"] = compare(partial(conversions.image_array, message), pixels)
    depth = random.random((HEIGHT, WIDTH), dtype=np.float32)
    results["image out, 32FC1"] = compare(lambda: conversions.depth_image(types, 1, "camera", depth), depth)
    xyz, sure = random.random((POINTS, 3), dtype=np.float32), random.random(POINTS, dtype=np.float32)
    rgb = random.integers(0, 256, (POINTS, 3), dtype=np.uint8)
    cloud = np.frombuffer(random.bytes(20 * POINTS), np.uint8)
    results["cloud, x y z rgb confidence"] = compare(
        lambda: conversions.point_cloud(types, 1, "camera", xyz, rgb=rgb, confidence=sure), cloud
    )
    ratios = {}
    for name, (work, copy) in results.items():
        ratios[name] = work / copy
        print(f"{name:30s} {work:7.3f} ms   plain copy {copy:7.3f} ms   ratio {work / copy:5.2f}")
    print(
        json.dumps(
            {
                "image_in_ratio": round(
                    max(value for name, value in ratios.items() if "image in" in name), 3
                ),
                "image_out_ratio": round(ratios["image out, 32FC1"], 3),
                "cloud_ratio": round(ratios["cloud, x y z rgb confidence"], 3),
                "milliseconds": {name: round(work, 4) for name, (work, _) in results.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
