"""The weights in the box are whole, small, and better than guessing."""

from __future__ import annotations

import torch

from d4rt_ros.model import load_model, named_config
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
