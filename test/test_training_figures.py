"""What a run says of itself: figures of held-out clips, and throughput."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from plane_clips import plane_clips
from tiny_recipe import tiny

from d4rt_ros.training.loop import held_out
from d4rt_ros.training.recipe import recipe_from_dict
from d4rt_ros.training.throughput import count_flops, matmul_rate
from d4rt_ros.training.validate import angle_deg, rotation_between, validate


def test_held_out_figures_of_perfect_answers_and_of_none() -> None:
    clips = plane_clips([0, 1, 2], frames=6, size=32)

    def perfect(video: torch.Tensor, aspect: torch.Tensor, q: Any) -> dict[str, torch.Tensor]:
        truth = clips.answer(q)
        return {"xyz": truth.xyz * 3, "uv": truth.uv, "visibility": truth.visibility * 2 - 1}

    def nothing(video: torch.Tensor, aspect: torch.Tensor, q: Any) -> dict[str, torch.Tensor]:
        here = torch.stack([q.u, q.v], -1)
        flat = torch.cat([here - 0.5, torch.ones_like(here[..., :1])], -1)
        return {"xyz": flat, "uv": here, "visibility": torch.ones_like(q.u)}

    good, bad = validate(perfect, [clips]), validate(nothing, [clips])
    assert good["absrel"] < 1e-5 and good["track_px"] < 1e-4 and good["visibility_acc"] == 1.0
    assert good["rot_deg"] < 1e-2 and good["focal_err"] < 1e-4
    assert bad["absrel"] == pytest.approx(bad["absrel_constant"]) and bad["absrel"] > 0.02
    assert bad["track_px"] == pytest.approx(bad["track_px_still"]) and bad["track_px"] > 0.2
    assert good["absrel_constant"] == bad["absrel_constant"]


def test_rotation_between_point_sets() -> None:
    angle = torch.deg2rad(torch.tensor(30.0, dtype=torch.float64))
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=torch.float64)
    points = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = rotation_between(points, points @ turn.T + 3, torch.ones(20, dtype=torch.bool))
    torch.testing.assert_close(found, turn)
    assert angle_deg(found) == pytest.approx(30.0)


def test_held_out_clips_are_fixed() -> None:
    recipe = recipe_from_dict(tiny())
    a, b = held_out(recipe), held_out(replace(recipe, seed=9))
    assert len(a[0].video) == 2
    assert torch.equal(a[0].video, b[0].video)


def test_throughput_counts_matrix_products() -> None:
    layer = torch.nn.Linear(64, 32, bias=False)
    x = torch.randn(10, 64)
    assert count_flops(lambda: layer(x).sum().backward()) == 2 * 2 * 10 * 64 * 32  # x needs no gradient
    assert matmul_rate(torch.device("cpu"), torch.float32, 0.02) > 1e8
