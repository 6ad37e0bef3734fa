"""Traces answer as the network does, whatever is asked, and follow its weights."""

from __future__ import annotations

import copy
import logging
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_network import SMALL, on_lens, small_model, some_queries
from torch import Tensor

from d4rt_ros.model import D4RT, Scene, scene
from d4rt_ros.model.embedding import to_unit
from d4rt_ros.model.parallel import over_cores
from d4rt_ros.model.traced import Traced

VIDEO = torch.rand(8, 3, 64, 64)


def plainly(encoded: Scene, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw answers by way of the trace, and straight from the network."""
    queries = some_queries(count, encoded.num_frames)
    with torch.inference_mode():
        one = queries.apply(lambda x: x[None])
        images, paths = encoded.settled
        straight = encoded.model.answer(one, images, encoded.memory, paths)
    for name in ("xyz", "displacement"):
        straight[name] = on_lens(encoded, straight[name])
    return encoded.decode_raw(queries), {name: value[0] for name, value in straight.items()}


@pytest.mark.parametrize("counts", [(1, 2, 64, 300), (300, 1), (64, 1, 0, 1, 65), (0, 3)])
def test_any_number_of_queries_after_any_other(counts: tuple[int, ...]) -> None:
    encoded = small_model().encode(VIDEO)
    for count in counts:
        traced, straight = plainly(encoded, count)
        assert traced.keys() == straight.keys()
        for name, value in straight.items():
            torch.testing.assert_close(traced[name], value, atol=1e-6, rtol=1e-6)


def test_encoding_is_that_of_the_network() -> None:
    model, aspect = small_model(), torch.tensor([1.5])
    for frames in (8, 4, 8):
        with torch.no_grad():
            straight = model.encoded(VIDEO[None, :frames], aspect)
        with torch.inference_mode():
            traced = model.encoded(VIDEO[None, :frames], aspect)
        for one, other in zip(traced, straight):
            assert one is not None
            assert other is not None
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert len(model._encoding._made) == 2


@pytest.mark.parametrize("move", [lambda model: model.set_precision(torch.bfloat16), D4RT.double, D4RT.float])
def test_weights_that_move_are_followed(move: Callable[[D4RT], D4RT]) -> None:
    model = small_model()
    model.encode(VIDEO).decode(some_queries(5, 8))
    model = move(model)
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.mul_(3)
    if model.heads.xyz_head.weight.dtype == torch.float32:
        traced, straight = plainly(model.encode(VIDEO), 5)
        torch.testing.assert_close(traced["xyz"], straight["xyz"], atol=1e-6, rtol=1e-6)
    assert len(model._answering._made) <= 1


def test_weights_that_are_loaded_are_followed() -> None:
    model = small_model()
    encoded = model.encode(VIDEO)
    before = plainly(encoded, 5)[0]
    model.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})
    traced, straight = plainly(encoded, 5)
    torch.testing.assert_close(traced["visibility"], straight["visibility"], atol=1e-6, rtol=1e-6)
    assert (before["visibility"] - traced["visibility"]).abs().max() > 1e-3


def test_a_network_that_has_run_can_be_copied_and_trained() -> None:
    model = small_model().set_precision(torch.bfloat16)
    queries = some_queries(5, 8)
    answers = model.encode(VIDEO).decode(queries)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin.encode(VIDEO).decode(queries).xyz, answers.xyz)
        assert twin._answering._function.__self__ is twin  # type: ignore[attr-defined]
        twin.encode(VIDEO).decode(some_queries(6, 8))
        assert len(twin._answering._made) == 1, "any number of queries, in a copy too"
    raw = model.requires_grad_(True)(VIDEO[None], torch.ones(1), some_queries(5, 8, batch=1))
    sum(value.float().sum() for value in raw.values()).backward()
    assert all(p.grad is not None for p in model.encoder.blocks.parameters())


def test_weights_that_learn_are_not_traced_but_answer_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = D4RT(SMALL).eval()
    for frames in (8, 4):
        encoded = model.encode(VIDEO[:frames])
        for count in (5, 6):
            traced, straight = plainly(encoded, count)
            torch.testing.assert_close(traced["uv"], straight["uv"], atol=1e-6, rtol=1e-6)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 3, "once for encoding, for refining and for answering"
    assert all("without a trace" in one and "requires grad" in one and "\n" not in one for one in said)


@pytest.mark.parametrize("kind", [RuntimeError, AttributeError, NotImplementedError, ValueError])
def test_what_fails_without_a_trace_too_is_raised_and_tried_again(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    broken, calls = [True], []

    def double(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(x)
        if broken:
            raise kind("out of memory")
        return (2 * x,)

    traced = Traced(double)
    with pytest.raises(kind, match="out of memory"):
        traced(torch.ones(3))
    broken.clear()
    for _ in range(3):
        assert traced(torch.ones(3))[0].tolist() == [2, 2, 2]
    assert len(calls) == 3, "traced, not given up"
    assert not caplog.records


def test_a_wrong_shape_is_an_error_and_no_reason_to_do_without_traces() -> None:
    model = small_model()
    with torch.inference_mode(), pytest.raises(ValueError, match="8 frames of 32 x 32: the network takes"):
        model.encoded(VIDEO[None, ..., :32, :32], torch.ones(1))
    assert not model._encoding._made


def test_what_is_compiled_is_left_to_the_compiler() -> None:
    model = small_model().compile()
    assert not isinstance(model._encoding, Traced)
    assert not isinstance(model._answering, Traced)


def test_threads_share_a_trace() -> None:
    calls = []

    def double(x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
        calls.append(len(x))
        time.sleep(0.05)  # until all have come
        return (2 * x if y is None else x + y,)

    traced = Traced(double, free=1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: traced(torch.full((1, n + 1), float(n)), None)[0], range(64)))
    for n, value in enumerate(found):
        assert torch.equal(value, torch.full((1, n + 1), 2.0 * n))
    assert len(calls) == 1
    assert traced(torch.ones(1, 2), torch.ones(1, 2))[0].sum() == 4


def test_what_a_trace_takes_for_granted_is_what_it_was_made_for() -> None:
    unit = Traced(lambda x: (to_unit(x),))
    for dtype, value in ((torch.uint8, 51), (torch.float32, 0.2), (torch.uint8, 51)):
        assert float(unit(torch.full((2, 3), value, dtype=dtype))[0][0, 0]) == pytest.approx(0.2)
    clips = Traced(lambda x: (x + len(x),), free=1)
    assert [int(clips(torch.zeros(n, 4))[0][0, 0]) for n in (1, 2, 1)] == [1, 2, 1]
    mean = Traced(lambda x: (x.mean() if x.numel() else x.sum(),), free=1)
    assert [float(mean(torch.ones(1, n))[0]) for n in (0, 3, 0, 5)] == [0, 1, 0, 1]
    gap = Traced(lambda x, y: (x if y is None else -y,))
    one = torch.ones(2)
    assert [int(gap(*given)[0][0]) for given in ((one, None), (None, one), (one, None))] == [1, -1, 1]

    product = Traced(lambda x: (x @ x,))
    one = torch.full((2, 2), 1 / 3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert product(one)[0].dtype == torch.bfloat16
    assert torch.equal(product(one)[0], one @ one)


def test_chunks_on_two_cores_answer_as_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, queries = small_model().encode(VIDEO), some_queries(100, 8)
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
