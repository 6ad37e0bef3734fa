"""A recipe small enough to be trained in a test."""

from __future__ import annotations

from typing import Any

TINY_MODEL = {
    "frames": 4, "image_size": [16, 16], "patch": [2, 8, 8], "vit_width": 32, "vit_heads": 2, "vit_depth": 2,
    "dec_width": 32, "dec_heads": 2, "dec_depth": 1, "pyramid": 4, "refiner": 4,
}  # fmt: skip


def tiny(**changes: Any) -> dict[str, Any]:
    return {
        "model": TINY_MODEL,
        "steps": 8,
        "precision": "float32",
        "validate_clips": 2,
        "sources": [{"options": {"objects": 2, "clutter": 2}}],
        "feed": {"batch": 2, "chunk": 1, "reuse": 2, "pool": 2, "workers": 0},
        "sampling": {"count": 32, "curriculum_steps": 4},
        "optimiser": {"warmup": 2},
        **changes,
    }
