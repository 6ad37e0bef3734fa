"""Queries padded to a graph's fixed count answer as they would alone; the capture itself needs a GPU."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from test_network import SMALL, small_model, some_queries

from d4rt_ros.model.graphs import DecodeGraphs, padded
from d4rt_ros.model.queries import Queries


def test_padding_does_not_show() -> None:
    model = small_model()
    scene = model.encode(torch.rand(8, 3, 64, 64))
    queries = some_queries(10, 8, batch=1)
    with torch.inference_mode():
        alone = model.answer(queries, scene.images, scene.memory, scene.paths)
        among = model.answer(padded(queries, 64), scene.images, scene.memory, scene.paths)
    for name, value in alone.items():
        assert among[name].shape[1] == 64
        torch.testing.assert_close(among[name][:, :10], value, atol=2e-6, rtol=1e-5)


def test_what_is_asked_is_known_by_all_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: a replay is a plain answer from what the graphs would read."""

    def replay(self: DecodeGraphs, queries: Queries) -> dict[str, torch.Tensor]:
        return self._answer(queries, self._images, self._memory, self._paths)  # type: ignore[arg-type]

    monkeypatch.setattr(DecodeGraphs, "_replay", replay)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    model = small_model()
    scene = model.encode(torch.rand(8, 3, 64, 64))
    queries = some_queries(10, 8, batch=1)
    one = scene.images, scene.memory, scene.paths
    other = scene.images * 0.5, scene.memory, scene.paths
    graphs = copy.deepcopy(DecodeGraphs(model.answer))
    with torch.inference_mode():
        for asked in (one, other, one, one):
            expected = model.answer(queries, *asked)["xyz"]
            torch.testing.assert_close(graphs(queries, *asked)["xyz"], expected)


@pytest.mark.slow
def test_compiled_blocks_answer_the_same() -> None:
    plain, compiled = small_model(), small_model().compile()
    video, queries = torch.rand(8, 3, 64, 64), some_queries(10, 8)
    expected = plain.encode(video).decode(queries)
    torch.testing.assert_close(compiled.encode(video).decode(queries).xyz, expected.xyz, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_graphs_follow_the_scene_that_is_asked() -> None:
    model = small_model().to("cuda")
    videos, queries = torch.rand(2, 8, 3, 64, 64), some_queries(100, 8)
    scenes = [model.encode(video) for video in videos]
    for scene in (*scenes, *scenes):  # back and forth between two scenes
        plain = model.answer(
            queries.to("cuda").apply(lambda x: x[None]), scene.images, scene.memory, scene.paths
        )
        torch.testing.assert_close(scene.decode_raw(queries)["xyz"], plain["xyz"][0], atol=1e-4, rtol=1e-4)
    assert model.config == SMALL
