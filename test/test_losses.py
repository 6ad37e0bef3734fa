"""The training loss against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from d4rt_ros.training.losses import LossWeights, d4rt_loss, log_depth_error, masked_mean, signed_log
from d4rt_ros.training.truth import Truth


def a_truth(batch: int = 2, count: int = 50, seed: int = 0) -> Truth:
    g = torch.Generator().manual_seed(seed)
    known = torch.ones(batch, count, dtype=torch.bool)
    normal = torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=g), dim=-1)
    return Truth(
        xyz=torch.randn(batch, count, 3, generator=g) + torch.tensor([0.0, 0.0, 5.0]),
        uv=torch.rand(batch, count, 2, generator=g),
        visibility=(torch.rand(batch, count, generator=g) > 0.3).float(),
        displacement=torch.randn(batch, count, 3, generator=g),
        normal=normal,
        xyz_valid=known,
        uv_valid=known,
        visibility_valid=known,
        normal_valid=known,
    )


def perfect(truth: Truth, scale: float = 1.0) -> dict[str, Tensor]:
    return {
        "xyz": truth.xyz * scale,
        "uv": truth.uv,
        "visibility": (truth.visibility * 2 - 1) * 30,
        "displacement": truth.displacement * scale,
        "normal": truth.normal * 7,
        "confidence": torch.full_like(truth.visibility, 20.0),
    }


def test_signed_log_by_hand() -> None:
    x = torch.tensor([math.e - 1, 1 - math.e, 0.0])
    torch.testing.assert_close(signed_log(x), torch.tensor([1.0, -1.0, 0.0]))


def test_xyz_and_confidence_by_hand() -> None:
    truth = a_truth(1, 2)
    truth = replace(truth, xyz=torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]]]))
    raw = perfect(truth) | {
        "xyz": torch.tensor([[[0.0, 0.0, 8.0], [0.0, 0.0, 8.0]]]),
        "confidence": torch.zeros(1, 2),
    }
    _, terms = d4rt_loss(raw, truth, LossWeights())
    # depths over their own means: 1, 1 against 0.5, 1.5; confidence is a half
    error = (math.log(2 / 1.5) + math.log(2.5 / 2)) / 2
    assert float(terms["error"]) == pytest.approx(error, abs=1e-6)
    assert float(terms["xyz"]) == pytest.approx(error / 2, abs=1e-6)
    assert float(terms["confidence"]) == pytest.approx(math.log(2), abs=1e-6)


def test_other_terms_by_hand() -> None:
    truth = a_truth(1, 2)
    raw = perfect(truth)
    raw["uv"] = truth.uv + torch.tensor([0.1, -0.2])
    raw["visibility"] = torch.zeros(1, 2)
    axes = torch.eye(3)[None]
    truth = replace(truth, normal=axes[:, :2])
    raw["normal"] = torch.stack([axes[:, 0], -axes[:, 1]], 1)  # the same, and the opposite
    shift = truth.xyz[..., 2].abs().mean()
    raw["displacement"] = truth.displacement + torch.tensor([shift, 0.0, 0.0])
    _, terms = d4rt_loss(raw, truth, LossWeights())
    assert float(terms["uv"]) == pytest.approx(0.3, abs=1e-6)
    assert float(terms["visibility"]) == pytest.approx(math.log(2), abs=1e-6)
    assert float(terms["normal"]) == pytest.approx(1.0, abs=1e-6)
    assert float(terms["displacement"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.02, 40.0])
def test_nothing_to_learn_where_the_answer_is_right_up_to_scale(scale: float) -> None:
    truth = a_truth()
    total, terms = d4rt_loss(perfect(truth, scale), truth, LossWeights(log_depth=1.0))
    assert float(total) < 2e-4
    assert all(float(value) < 2e-4 for value in terms.values())


def test_total_is_the_weighted_sum() -> None:
    truth, other = a_truth(seed=1), a_truth(seed=2)
    weights = LossWeights(1.0, 0.3, 0.7, 0.2, 0.5, 0.4, 0.6, 0.8, 0.9)
    log_depth, depth = torch.rand(2, len(truth.xyz), 2, 3, 4)
    log_focal, focal = torch.rand(2, len(truth.xyz))
    told = {**perfect(other), "log_depth": log_depth, "log_focal": log_focal}
    total, terms = d4rt_loss(told, truth, weights, depth, focal)
    assert float(terms["lens"]) == pytest.approx(float((log_focal - focal.log()).abs().mean()))
    expected = sum(getattr(weights, f.name) * float(terms[f.name]) for f in fields(weights))
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_weights_of_the_paper() -> None:
    w = LossWeights()
    assert (w.xyz, w.uv, w.visibility, w.displacement, w.normal, w.confidence) == (
        1.0,
        0.1,
        0.1,
        0.1,
        0.5,
        0.2,
    )


def test_confidence_held_at_one_leaves_the_xyz_gradient_whole() -> None:
    truth = a_truth(1, 8)

    def gradients(active: bool) -> tuple[Tensor, Tensor]:
        raw = perfect(a_truth(1, 8, seed=3))
        raw["confidence"] = torch.full((1, 8), math.log(0.25 / 0.75), requires_grad=True)  # a quarter
        raw["xyz"] = raw["xyz"].clone().requires_grad_()
        total, terms = d4rt_loss(raw, truth, LossWeights(displacement=0.0), confidence_active=active)
        torch.testing.assert_close(terms["xyz"], terms["error"] * (0.25 if active else 1))
        return torch.autograd.grad(total, [raw["xyz"], raw["confidence"]])

    (held, head), (weighed, other) = gradients(False), gradients(True)
    torch.testing.assert_close(weighed, held / 4)
    torch.testing.assert_close(head, other)
    assert head.abs().max() > 0


def test_unknown_truth_never_enters() -> None:
    truth = a_truth()
    keep = torch.zeros(2, 50, dtype=torch.bool)
    keep[0, :20] = True  # the second clip knows nothing at all
    spoilt = {}
    for f in fields(truth):
        value = getattr(truth, f.name)
        if f.name.endswith("valid"):
            spoilt[f.name] = keep
        else:
            mask = keep[..., None] if value.ndim == 3 else keep
            spoilt[f.name] = torch.where(mask, value, torch.nan)
    raw = {name: value.clone().requires_grad_() for name, value in perfect(a_truth(seed=5)).items()}
    total, _ = d4rt_loss(raw, Truth(**spoilt), LossWeights(log_depth=1.0))
    total.backward()
    assert torch.isfinite(total)
    for name, value in raw.items():
        assert value.grad is not None and torch.isfinite(value.grad).all(), name
        assert (value.grad[1] == 0).all(), name
        assert (value.grad[0, 20:] == 0).all(), name


def test_parts_of_a_batch_average_to_the_whole() -> None:
    truth, raw = a_truth(4), perfect(a_truth(4, seed=9))
    truth = replace(truth, xyz_valid=torch.rand(4, 50, generator=torch.Generator().manual_seed(3)) > 0.4)
    whole, _ = d4rt_loss(raw, truth, LossWeights(log_depth=0.5))
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        part = Truth(*(getattr(truth, f.name)[rows] for f in fields(truth)))
        halves.append(d4rt_loss({k: v[rows] for k, v in raw.items()}, part, LossWeights(log_depth=0.5))[0])
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2)


def test_log_depth_ignores_scale_and_counts_ratios() -> None:
    true = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert float(log_depth_error(true * 3, true, mask)) == pytest.approx(0.0, abs=1e-6)
    flat = torch.ones(1, 4)
    assert float(log_depth_error(flat, true, mask)) == pytest.approx(math.log(2) / 4, abs=1e-6)
    behind = torch.tensor([[-1.0, 1.0, 1.0, 2.0]], requires_grad=True)
    error = log_depth_error(behind, true, mask).sum()
    error.backward()
    assert (
        float(error.detach()) > 2 and behind.grad is not None and float(behind.grad[0, 0]) < 0
    )  # pulled to the front


def test_masked_mean_of_nothing_is_zero() -> None:
    value = masked_mean(torch.full((1, 3), torch.nan), torch.zeros(1, 3, dtype=torch.bool))
    assert float(value) == 0.0


def test_points_far_outside_the_image_do_not_teach_uv() -> None:
    truth = a_truth(1, 4)
    truth.uv[0, 0] = torch.tensor([14.0, 0.5])
    raw = perfect(a_truth(1, 4, seed=2))
    raw["uv"] = raw["uv"].clone().requires_grad_()
    total, _ = d4rt_loss(raw, truth, LossWeights())
    (gradient,) = torch.autograd.grad(total, [raw["uv"]])
    assert bool((gradient[0, 0] == 0).all()) and bool((gradient[0, 1:] != 0).all())
