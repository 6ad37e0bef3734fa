"""Products in blocked layout follow their weights, and parts spread over cores come back as from one."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from test_network import small_model, some_queries

from d4rt_ros.model import packed, scene
from d4rt_ros.model.parallel import over_cores

BF16 = torch.bfloat16
needs_blocked = pytest.mark.skipif(not packed._available(), reason="no blocked bfloat16 products here")


def expected(layer: packed.Linear, x: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.linear(x.float(), layer.weight.float(), layer.bias.float()))


@needs_blocked
@torch.no_grad()
def test_a_layer_follows_its_weights() -> None:
    layer = packed.Linear(32, 48).to(BF16)
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(layer(x, gelu=True).float(), expected(layer, x.to(BF16)), atol=0.02, rtol=0.02)
    layer.weight.mul_(-2)
    layer.bias.add_(1)
    torch.testing.assert_close(layer(x, gelu=True).float(), expected(layer, x.to(BF16)), atol=0.03, rtol=0.02)
    layer.to(torch.float32).weight.mul_(3)
    torch.testing.assert_close(layer(x, gelu=True), expected(layer, x))
    layer.to(BF16)
    torch.testing.assert_close(layer(x, gelu=True).float(), expected(layer, x.to(BF16)), atol=0.1, rtol=0.02)


@needs_blocked
@torch.no_grad()
def test_rows_are_those_asked_for() -> None:
    weight, bias, x = torch.randn(48, 32).to(BF16), torch.randn(48).to(BF16), torch.randn(7, 32).to(BF16)
    whole = F.linear(x, weight, bias)
    torch.testing.assert_close(packed.Packed(last=16)(x, weight, bias), whole[:, :16], atol=0.1, rtol=0.02)
    torch.testing.assert_close(packed.Packed(first=16)(x, weight, bias), whole[:, 16:], atol=0.1, rtol=0.02)


def test_a_network_that_has_run_can_be_copied_and_trained() -> None:
    model = small_model().set_precision(BF16)
    video, queries = torch.rand(8, 3, 64, 64), some_queries(5, 8)
    answers = model.encode(video).decode(queries)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.encode(video).decode(queries).xyz, answers.xyz)
    raw = model.requires_grad_(True)(video[None], torch.ones(1), some_queries(5, 8, batch=1))
    sum(value.float().sum() for value in raw.values()).backward()
    assert all(p.grad is not None for p in model.encoder.blocks.parameters())


def test_chunks_on_two_cores_answer_as_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, queries = small_model().encode(torch.rand(8, 3, 64, 64)), some_queries(100, 8)
    alone = encoded.decode(queries)
    monkeypatch.setattr(scene, "CHUNK_CPU", 9)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(encoded.decode(queries).xyz, alone.xyz, atol=2e-6, rtol=1e-5)
        assert over_cores(lambda part: (part, torch.get_num_threads()), range(5)) == [
            (i, 1) for i in range(5)
        ]
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            over_cores(lambda part: 1 // part, (1, 0))
    finally:
        torch.set_num_threads(before)
