"""Optimisers: what each parameter gets, at which rate, and steps that come to nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_recipe import tiny

from d4rt_ros.model import D4RT
from d4rt_ros.training.feed import Feed
from d4rt_ros.training.optim import RunningMean, build_optimisers, rate
from d4rt_ros.training.recipe import OptimiserSettings, recipe_from_dict
from d4rt_ros.training.trainer import Trainer


def test_gradients_that_are_not_finite_are_left_out_then_end_the_run() -> None:
    trainer = Trainer(recipe_from_dict(tiny()), torch.device("cpu"))
    trainer.take_step()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    handle = trainer.model.heads.register_forward_hook(
        lambda m, i, o: {k: v * torch.nan for k, v in o.items()}
    )
    trainer.take_step()
    assert trainer.skipped == 1 and trainer.step == 2
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(FloatingPointError, match="20 steps"):
        for _ in range(20):
            trainer.take_step()
    handle.remove()


def test_accumulated_batches_equal_one_large_batch() -> None:
    def gradient(feed: dict[str, int], accumulate: int) -> torch.Tensor:
        recipe = recipe_from_dict(tiny(feed=feed, optimiser={"accumulate": accumulate}))
        trainer = Trainer(recipe, torch.device("cpu"))
        batch = Feed(recipe).batch(0)
        for _ in range(accumulate):
            trainer.forward_backward(batch, False)
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])

    feed = {"batch": 2, "chunk": 1, "reuse": 1, "pool": 1, "workers": 0}
    torch.testing.assert_close(gradient(feed, 2), gradient(feed, 1))


def test_muon_gets_hidden_matrices_and_every_parameter_is_trained_once() -> None:
    model = D4RT(recipe_from_dict(tiny()).model)
    optimisers = build_optimisers(model, OptimiserSettings())
    hidden = {id(p) for g in optimisers[0].param_groups for p in g["params"]}
    names = {id(p): name for name, p in model.named_parameters()}
    assert {"encoder.blocks.0.attn.in_proj_weight", "decoder.blocks.0.ff.0.weight"} <= {
        names[i] for i in hidden
    }
    assert not any("embed.weight" in names[i] or "head" in names[i] for i in hidden)
    every = [id(p) for o in optimisers for g in o.param_groups for p in g["params"]]
    assert sorted(every) == sorted(names)
    assert len(build_optimisers(model, OptimiserSettings(kind="adamw"))) == 1
    rates = {names[id(p)]: g["lr"] for g in optimisers[1].param_groups for p in g["params"]}
    assert rates["heads.uv_head.weight"] == pytest.approx(rates["encoder.final_norm.weight"] / 10)


def test_steps_in_single_precision_are_torch_s() -> None:
    torch.manual_seed(0)
    model = D4RT(recipe_from_dict(tiny()).model)
    other = copy.deepcopy(model)
    pairs = [
        (part, build_optimisers(part, OptimiserSettings(muon_lr=0.1), precision)[0])
        for part, precision in ((model, torch.bfloat16), (other, torch.float32))
    ]
    assert type(pairs[0][1]) is torch.optim.Muon
    assert type(pairs[1][1]) is not torch.optim.Muon
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    for step in range(3):
        for part, optimiser in pairs:
            torch.manual_seed(step)
            for parameter in part.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimiser.step()
    there, also = (
        torch.nn.utils.parameters_to_vector(part.parameters()).detach() - start for part, _ in pairs
    )
    assert float(there.norm()) > 1
    assert float((there - also).norm() / there.norm()) < 0.02  # bfloat16 has three digits


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_a_run_has_the_precision_that_its_processor_is_fast_at(
    fast: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d4rt_ros.training.trainer.select_precision", lambda name, device: fast)
    recipe = recipe_from_dict(tiny(precision="bfloat16", optimiser={"kind": "muon"}))
    run = Trainer(recipe, torch.device("cpu"))
    assert run.precision == fast
    assert (type(run.optimisers[0]) is torch.optim.Muon) == (fast == torch.bfloat16)
    assert np.isfinite(run.take_step()["loss"])
    told = Trainer(recipe_from_dict(tiny(precision="float32")), torch.device("cpu"))
    assert told.precision == torch.float32


def test_rate_warms_up_and_falls_as_a_cosine() -> None:
    settings = OptimiserSettings(warmup=10, final=0.1)
    assert rate(0, 0.0, settings) == pytest.approx(0.1)
    assert rate(9, 0.0, settings) == pytest.approx(1.0)
    assert rate(50, 0.5, settings) == pytest.approx(0.55)
    assert rate(100, 1.0, settings) == pytest.approx(0.1)


def test_running_mean_by_hand() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    mean = RunningMean(model, 0.9)
    torch.nn.init.constant_(model.weight, 2.0)
    mean.update(model, 0)  # a young mean keeps a tenth
    assert float(mean.weights["weight"]) == pytest.approx(1.9)
    mean.update(model, 10_000)
    assert float(mean.weights["weight"]) == pytest.approx(1.91)
