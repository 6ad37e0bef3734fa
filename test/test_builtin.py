"""The weights in the box are whole, small, and better than guessing."""

from __future__ import annotations

import numpy as np
import torch

from bench.procedural import held_out_clips
from d4rt_ros.model import Queries, load_model, named_config
from d4rt_ros.model.checkpoints import BUILTIN
from d4rt_ros.training.loop import held_out
from d4rt_ros.training.recipe import load_recipe
from d4rt_ros.training.validate import validate


def test_weights_fit_the_size_that_was_promised() -> None:
    sizes = [part.stat().st_size for part in BUILTIN.glob("*.safetensors")]
    assert sum(sizes) < 32e6 and max(sizes) < 16 * 2**20
    assert load_model("builtin").config == named_config("builtin")


def test_answers_are_better_than_guessing() -> None:
    """Held-out scenes: depth against a constant, tracks against points that stay."""
    model = load_model("builtin")

    def predict(video, aspect_ratio, queries):  # type: ignore[no-untyped-def]
        with torch.inference_mode():
            return model(video.float() / 255, aspect_ratio, queries)

    found = validate(predict, held_out(load_recipe("builtin")))
    assert found["absrel"] < 0.95 * found["absrel_constant"]
    assert found["track_px"] < found["track_px_still"]


def test_confidence_is_the_share_of_depths_within_a_tenth() -> None:
    """On 16 held-out clips, among the less sure half and the surer one."""
    model = load_model()
    right, sure = [], []
    for clip in held_out_clips(model.config, 16):
        assert clip.depth is not None and clip.depth_uv is not None
        scene, frame = model.encode(clip.video, clip.stamps, clip.aspect_ratio), 3
        u, v = torch.tensor(clip.depth_uv[frame], dtype=torch.float32).unbind(-1)
        found, truth = scene.decode(Queries.make(u, v, frame, frame, frame)), clip.depth[frame]
        ratio = found.xyz[:, 2].numpy() / truth
        right.append(np.abs(ratio / np.median(ratio) - 1) < 0.1)
        sure.append(found.confidence.numpy())
    correct, said = np.concatenate(right), np.concatenate(sure)
    half = said > np.median(said)
    for part in (half, ~half):
        assert abs(correct[part].mean() - said[part].mean()) < 0.1
    assert correct[half].mean() > correct[~half].mean() + 0.1
