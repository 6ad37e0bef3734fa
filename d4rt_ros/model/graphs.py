"""CUDA graphs of the decoder: small decodes cost one launch in place of hundreds.

A graph replays fixed addresses and shapes, so queries are padded to one of a few counts, and the scene that
is asked is first copied to where the graph reads it (once, as long as the same scene is asked again).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from d4rt_ros.model.layers import KeysValues
from d4rt_ros.model.queries import Queries

Answer = Callable[[Queries, Tensor, KeysValues, "Tensor | None"], dict[str, Tensor]]
COUNTS = (64, 1024, 16384)
_ONE_AT_A_TIME = threading.Lock()  # scenes are shared by threads, what a graph reads and writes is not
_WARM_UP = 3  # runs before a capture, as torch asks for


def padded(queries: Queries, count: int) -> Queries:
    """Queries [1, N] followed by repeats of the first, [1, count]: any valid query will do."""
    missing = count - queries.shape[1]
    if missing == 0:
        return queries
    return queries.apply(lambda x: torch.cat((x, x[:, :1].expand(-1, missing)), dim=1))


class DecodeGraphs:
    """Graphs of one network's `answer`, made when a query count is first seen."""

    def __init__(self, answer: Answer) -> None:
        """`answer` maps queries [1, N], images, memory and paths to raw outputs [1, N, ...]."""
        self._answer = answer
        self._asked: tuple[object, ...] = ()  # what the graphs read copies of now
        self._images: Tensor | None = None
        self._memory: KeysValues = []
        self._paths: Tensor | None = None
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Queries, dict[str, Tensor]]] = {}

    def __call__(
        self, queries: Queries, images: Tensor, memory: KeysValues, paths: Tensor | None
    ) -> dict[str, Tensor]:
        """Raw outputs for queries [1, N], N from 1 to the largest of `COUNTS`."""
        with _ONE_AT_A_TIME, torch.cuda.device(images.device):
            self._load(images, memory, paths)
            return self._replay(queries)

    def __reduce__(self) -> tuple[type[DecodeGraphs], tuple[Answer]]:
        """A copied or pickled network makes its own graphs."""
        return DecodeGraphs, (self._answer,)

    def _replay(self, queries: Queries) -> dict[str, Tensor]:
        number = queries.shape[1]
        count = next(c for c in COUNTS if c >= number)
        if count not in self._graphs:
            self._graphs[count] = self._capture(padded(queries, count))
        graph, inputs, outputs = self._graphs[count]
        for field in fields(inputs):
            getattr(inputs, field.name).copy_(getattr(padded(queries, count), field.name))
        graph.replay()
        return {name: value[:, :number].clone() for name, value in outputs.items()}

    def _load(self, images: Tensor, memory: KeysValues, paths: Tensor | None) -> None:
        asked = images, memory, paths  # scenes that differ in their lens share the memory, and no more
        if len(self._asked) == 3 and all(a is b for a, b in zip(self._asked, asked)):
            return
        shapes = images.shape, images.dtype, memory[0][0].shape
        held = self._images
        if held is None or shapes != (held.shape, held.dtype, self._memory[0][0].shape):
            self._graphs.clear()
            self._images = images.clone()
            self._memory = [(keys.clone(), values.clone()) for keys, values in memory]
            self._paths = None if paths is None else paths.clone()
        else:
            held.copy_(images)
            for mine, theirs in zip(self._memory, memory):
                mine[0].copy_(theirs[0])
                mine[1].copy_(theirs[1])
            if self._paths is not None and paths is not None:
                self._paths.copy_(paths)
        self._asked = asked

    def _capture(self, queries: Queries) -> tuple[torch.cuda.CUDAGraph, Queries, dict[str, Tensor]]:
        assert self._images is not None
        inputs = queries.apply(lambda x: x.clone())
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._answer(inputs, self._images, self._memory, self._paths)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self._answer(inputs, self._images, self._memory, self._paths)
        return graph, inputs, outputs
