"""The training loop: when to stop, save, measure and report, in one process or under torchrun."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.tensorboard import SummaryWriter

from d4rt_ros.training.datasets import open_source
from d4rt_ros.training.recipe import Recipe, SourceSettings
from d4rt_ros.training.throughput import matmul_rate
from d4rt_ros.training.trainer import Trainer
from d4rt_ros.training.truth import ClipBatch


def held_out(recipe: Recipe) -> list[ClipBatch]:
    """Procedural clips of fixed seeds that training never sees, at most 8 a batch."""
    source = open_source(SourceSettings(), recipe.model)
    seeds = list(range(recipe.validate_clips))
    return [source.make(seeds[i : i + 8]) for i in range(0, len(seeds), 8)]


class _Stop:
    """Set by SIGTERM or SIGINT, inside of `with`: finish the step, write a checkpoint, leave."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():  # signals are no other thread's
            self._before = {kind: signal.signal(kind, self._ask) for kind in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    device: torch.device | str = "cpu",
) -> Trainer:
    """Train until the recipe's steps, `minutes` of training, SIGTERM or SIGINT; checkpoints go to `folder`.

    With `minutes` the learning rate falls over whichever ends first, steps or time. Under torchrun every
    process calls this. From another thread than the main one, signals are left alone. Raises
    FileNotFoundError when resuming without a checkpoint, FileExistsError when a new run would overwrite one
    or weights, ValueError for a checkpoint that does not fit the recipe and for minutes that are not above 0
    and finite.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes is {minutes}, must be a finite number above 0")
    rank, world, device = _join_processes(torch.device(device))
    checkpoint = folder / "checkpoint.pt"
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
    if not resume and checkpoint.exists():
        raise FileExistsError(f"{checkpoint} exists: resume it, or choose another folder")
    weights = folder / "weights.safetensors"  # what was learnt, where a large checkpoint was deleted
    if not resume and weights.exists():
        raise FileExistsError(f"{weights} exists, and this run would replace it: choose another folder")
    trainer = Trainer(recipe, device, rank, world)
    if resume:
        trainer.load(checkpoint)
    with _Stop() as stop:
        try:
            _run(trainer, folder, stop, None if minutes is None else minutes * 60)
        finally:
            trainer.close()
            if world > 1:
                dist.destroy_process_group()
    return trainer


def _run(trainer: Trainer, folder: Path, stop: _Stop, budget: float | None) -> None:
    recipe, main = trainer.recipe, trainer.rank == 0
    folder.mkdir(parents=True, exist_ok=True)
    writer = SummaryWriter(str(folder / "log")) if main else None
    clips = held_out(recipe) if main else []
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # or plain attention would go to float32
    limit = matmul_rate(trainer.device, trainer.precision)
    flops = 0 if recipe.compile or trainer.step >= recipe.steps else trainer.count_flops()
    saved = validated = printed = time.monotonic()
    since, waited = trainer.step, 0.0
    while trainer.step < recipe.steps and not _agree(stop.asked, trainer):
        if budget is not None and _agree(trainer.seconds >= budget, trainer):
            break
        found = trainer.take_step(budget)
        waited += found.pop("waited")
        if writer is None:
            continue
        now = time.monotonic()
        for name, value in found.items():
            writer.add_scalar(f"train/{name}", value, trainer.step)
        if now - printed > 20 or trainer.step == recipe.steps:
            pace = (now - printed) / (trainer.step - since)
            speed = flops / pace
            print(
                f"step {trainer.step} {trainer.seconds / 60:.1f} min "
                + " ".join(f"{name} {value:.4g}" for name, value in found.items())
                + f" | {pace:.3f} s/step, {waited / (now - printed):.0%} waiting for clips, "
                f"{speed / 1e9:.0f} of {limit / 1e9:.0f} GFLOP/s ({speed / limit:.0%}), "
                f"{trainer.skipped} skipped",
                flush=True,
            )
            printed, since, waited = now, trainer.step, 0.0
        if now - saved > recipe.checkpoint_minutes * 60:
            trainer.save(folder)
            saved = now
        if now - validated > recipe.validate_minutes * 60:
            _report(trainer, clips, writer)
            validated = time.monotonic()
    if writer is not None:
        trainer.save(folder)
        _report(trainer, clips, writer)
        writer.close()


def _agree(mine: bool, trainer: Trainer) -> bool:
    """Whether any process wants to stop, so that all do at the same step."""
    if trainer.world == 1:
        return mine
    flag = torch.tensor(float(mine), device=trainer.device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag > 0)


def _report(trainer: Trainer, clips: list[ClipBatch], writer: SummaryWriter) -> None:
    figures = trainer.validate(clips)
    for name, value in figures.items():
        writer.add_scalar(f"held_out/{name}", value, trainer.step)
    shown = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"held out at step {trainer.step}: {shown}", flush=True)


def _join_processes(device: torch.device) -> tuple[int, int, torch.device]:
    """Rank, count and device under torchrun; 0, 1 and `device` otherwise."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1, device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), world, device
