"""Batches for training, each a pure function of the recipe and its number, so a run resumes exactly.

A worker keeps a pool of made clip batches; every batch of the feed asks fresh queries of one of them with
fresh colours, and the oldest is replaced after `reuse` batches. So making clips costs little beside training.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import signal
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from d4rt_ros.model import Queries
from d4rt_ros.model.pyramid import USUAL_FOCAL
from d4rt_ros.training.augment import CroppedClips, augment_colour, random_box
from d4rt_ros.training.datasets import open_source
from d4rt_ros.training.recipe import Recipe
from d4rt_ros.training.sampling import sample_queries
from d4rt_ros.training.truth import ClipBatch, Truth

D = TypeVar("D", Queries, Truth)
_PLAIN = ("video", "aspect_ratio", "focal", "guessed_focal", "depth")  # tensors of a batch
_WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])  # box of a crop that leaves nothing out
_STOPS = (signal.SIGINT, signal.SIGTERM)  # to a run and all its processes: it takes its step to the end
_FOCAL_ERROR = 0.1  # standard deviation of the logarithm: nobody tells a robot's camera exactly


@dataclass(frozen=True)
class Batch:
    """What a step needs: video [B, T, 3, H, W] uint8, aspect ratio [B], queries and their truth [B, N].

    focal: of the lenses [B], in image widths. guessed_focal: the same as a robot would have it. depth: of
    every pixel [B, T, H, W], not finite where not known.
    """

    number: int
    video: Tensor
    aspect_ratio: Tensor
    focal: Tensor
    guessed_focal: Tensor
    depth: Tensor
    queries: Queries
    truth: Truth


class ClipSource(Protocol):
    """Something that makes clips: procedural scenes, or a data set. shape: their frames, rows, columns."""

    shape: tuple[int, int, int]

    def make(self, seeds: list[int]) -> ClipBatch:
        """One clip for every seed, the same for the same seed."""
        ...


def _seed(*parts: int) -> int:
    """One number from several, spread over 32 bits."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class Feed:
    """Makes any batch of a run by its number, for the chunks of one process of `world`.

    A batch consists of chunks of clips that are made together; each is the same whichever process makes it.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, world: int = 1, worker: int = 0) -> None:
        """Open the sources.

        Raises ValueError if the chunks do not divide over the processes, or do not fit together.
        """
        chunks = recipe.feed.batch // recipe.feed.chunk
        if chunks % world:
            raise ValueError(
                f"{chunks} chunks (feed.batch / feed.chunk) do not divide over {world} processes"
            )
        self._recipe, self._worker = recipe, worker
        self._chunks = range(rank * chunks // world, (rank + 1) * chunks // world)
        self._sources = [open_source(s, recipe.model) for s in recipe.sources]
        weights = np.array([s.weight for s in recipe.sources], dtype=float)
        shapes = sorted({source.shape for source, weight in zip(self._sources, weights) if weight})
        if len(shapes) > 1 and len(self._chunks) > 1:
            raise ValueError(
                f"sources make clips of {' and '.join(map(str, shapes))} frames, rows and columns, which one "
                "batch does not hold: give them one size, or make feed.chunk as large as feed.batch"
            )
        self._weights = weights / weights.sum()
        self._pool: dict[int, list[ClipBatch]] = {}

    def _clips(self, group: int) -> list[ClipBatch]:
        """The chunks of one batch of clips, made if the pool has not got them."""
        if group not in self._pool:
            self._pool[group] = [self._make(group, chunk) for chunk in self._chunks]
        return self._pool[group]

    def _make(self, group: int, chunk: int) -> ClipBatch:
        seed = self._recipe.seed
        chosen = np.random.default_rng(_seed(seed, 1, group, chunk)).choice(
            len(self._sources), p=self._weights
        )
        # held-out seeds are small numbers: stay above them
        seeds = [2**32 + _seed(seed, 2, group, chunk, row) for row in range(self._recipe.feed.chunk)]
        return self._sources[chosen].make(seeds)

    def batch(self, number: int) -> Batch:
        """Batch `number`, which belongs to worker `number` modulo the count of workers."""
        recipe, feed = self._recipe, self._recipe.feed
        workers = max(1, feed.workers)
        first = number // workers // feed.reuse
        chosen = first + _seed(recipe.seed, 3, number) % feed.pool
        for past in [group for group in self._pool if group < first * workers]:
            del self._pool[past]
        clips = self._clips(chosen * workers + self._worker)
        asked = [self._ask(number, chunk, part) for chunk, part in zip(self._chunks, clips)]
        plain, queries, truths = zip(*asked)
        joined = {name: torch.cat([part[name] for part in plain]) for name in _PLAIN}
        return Batch(number, **joined, queries=join(queries), truth=join(truths))

    def _ask(self, number: int, chunk: int, clips: ClipBatch) -> tuple[dict[str, Tensor], Queries, Truth]:
        """Fresh colours and queries for one chunk: what a `Batch` has but for its number."""
        recipe = self._recipe
        rows = range(chunk * recipe.feed.chunk, (chunk + 1) * recipe.feed.chunk)
        generators = [torch.Generator().manual_seed(_seed(recipe.seed, 4, number, row)) for row in rows]
        boxes = torch.tensor([random_box(recipe.augment, g) for g in generators])
        if bool((boxes[:, 2:] < 1).any()):
            clips = _cropped(clips, boxes)
        near = recipe.sampling.near_share(number // recipe.optimiser.accumulate)
        queries = sample_queries(clips, recipe.sampling, near, generators)
        video = [augment_colour(v, recipe.augment, g) for v, g in zip(clips.video, generators)]
        focal = focal_lengths(clips)
        off = torch.cat([torch.randn(1, generator=g) for g in generators])  # last: the draws before stay
        plain = {
            "video": torch.stack(video),
            "aspect_ratio": clips.aspect_ratio,
            "focal": focal,
            "guessed_focal": focal * (_FOCAL_ERROR * off).exp(),
            "depth": clips.depth,
        }
        return plain, queries, clips.answer(queries)


def _cropped(clips: ClipBatch, boxes: Tensor) -> CroppedClips:
    """Clips cut to boxes, but not those in whose box there is no track to ask about."""
    cropped = CroppedClips(clips, boxes)
    if cropped.anchors is None:
        return cropped
    asked = torch.isfinite(cropped.anchors).flatten(1).any(1, keepdim=True)
    return cropped if asked.all() else CroppedClips(clips, torch.where(asked, boxes, _WHOLE))


def focal_lengths(clips: ClipBatch) -> Tensor:
    """Focal length [B] in image widths, that of a usual lens where the clips' points do not tell.

    Of pairs of points in a row, so that the axis may lie anywhere, as in what is cut out of a frame. Clips
    that answer only on their tracks have it as `focal`.
    """
    known: Tensor | None = getattr(clips, "focal", None)
    if known is not None:
        return known
    line = torch.tensor([0.1, 0.25, 0.75, 0.9])
    u, v = line.repeat(2), torch.tensor([0.25] * 4 + [0.75] * 4)
    truth = clips.answer(Queries.make(u, v, 0, 0, 0).apply(lambda x: x.expand(len(clips.video), -1)))
    tilt = torch.where(truth.xyz_valid, truth.xyz[..., 0] / truth.xyz[..., 2], torch.nan)
    tilt = tilt.unflatten(-1, (2, 4))
    one, other = torch.triu_indices(4, 4, 1)
    focal = (line[other] - line[one]) / (tilt[..., other] - tilt[..., one])
    focal = torch.where(focal > 0, focal, torch.nan).flatten(1)
    return focal.nanmedian(-1).values.nan_to_num(USUAL_FOCAL)


def join(parts: Sequence[D]) -> D:
    """Queries or truths one behind the other along the batch."""
    kind = type(parts[0])
    return kind(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(kind)))


def _pack(batch: Batch) -> dict[str, Any]:
    """As numpy, which crosses processes by value and leaves nothing in shared memory."""
    packed: dict[str, Any] = {"number": batch.number}
    packed |= {name: getattr(batch, name).numpy() for name in _PLAIN}
    for part in ("queries", "truth"):
        value = getattr(batch, part)
        packed[part] = [getattr(value, f.name).contiguous().numpy() for f in fields(value)]
    return packed


def _unpack(packed: dict[str, Any]) -> Batch:
    return Batch(
        number=packed["number"],
        **{name: torch.from_numpy(packed[name]) for name in _PLAIN},
        queries=Queries(*map(torch.from_numpy, packed["queries"])),
        truth=Truth(*map(torch.from_numpy, packed["truth"])),
    )


def _work(recipe: Recipe, rank: int, world: int, worker: int, start: int, out: Any) -> None:
    """A worker process: makes its batches in order, and ends with its parent."""
    for kind in _STOPS:
        signal.signal(kind, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = os.getppid()
    try:
        feed = Feed(recipe, rank, world, worker)
        number = start + (worker - start) % recipe.feed.workers
        while True:
            packed = _pack(feed.batch(number))
            while os.getppid() == parent:
                try:
                    out.put(packed, timeout=1)
                    break
                except queue.Full:
                    continue
            else:
                out.cancel_join_thread()  # nobody reads any more: do not wait for it
                return
            number += recipe.feed.workers
    except Exception as error:
        out.put(error)


class Batches:
    """The batches of a run in order, from background processes where the recipe has workers."""

    def __init__(self, recipe: Recipe, start: int, rank: int = 0, world: int = 1) -> None:
        """Begin with batch `start`."""
        self._next = start
        self._processes: list[BaseProcess] = []
        self._queues: list[Any] = []
        self._feed = Feed(recipe, rank, world) if recipe.feed.workers == 0 else None
        context = multiprocessing.get_context("spawn")
        atexit.register(self.close)  # or multiprocessing would wait for who ignores SIGTERM
        for worker in range(recipe.feed.workers):
            out = context.Queue(recipe.feed.prefetch)
            process = context.Process(
                target=_work, args=(_portable(recipe), rank, world, worker, start, out), daemon=True
            )
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # also until it ignores them itself
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._processes.append(process)
            self._queues.append(out)

    def take(self) -> Batch:
        """The next batch. Raises what a worker raised, or RuntimeError if it died."""
        number, self._next = self._next, self._next + 1
        if self._feed is not None:
            return self._feed.batch(number)
        worker = number % len(self._queues)
        while True:
            try:
                item = self._queues[worker].get(timeout=5)
                break
            except queue.Empty:
                if not self._processes[worker].is_alive():
                    raise RuntimeError(f"the process that makes clips (worker {worker}) died") from None
        if isinstance(item, Exception):
            raise item
        return _unpack(item)

    def close(self) -> None:
        """End the workers."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _portable(recipe: Recipe) -> Recipe:
    """The recipe with plain dictionaries for options, which pickle."""
    return replace(recipe, sources=tuple(replace(s, options=dict(s.options)) for s in recipe.sources))
