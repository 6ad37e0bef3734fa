"""A model against a sequence or any clips with truth: one dictionary of metrics beside baselines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from d4rt_ros.evaluation.clip import ROTATION_SPAN, Clip, cut_clips
from d4rt_ros.evaluation.scores import score_clip, summarise
from d4rt_ros.evaluation.sequence import DataError, Sequence
from d4rt_ros.model import ModelConfig, SceneLike


class Model(Protocol):
    """What is evaluated: the network, or anything that makes scenes of windows."""

    @property
    def config(self) -> ModelConfig:
        """`frames` is the window length."""

    def encode(
        self, video: Tensor, stamps: tuple[int, ...] | None = None, aspect_ratio: float | None = None
    ) -> SceneLike:
        """One window [T, 3, H, W] uint8."""


def evaluate_clips(model: Model, clips: Iterable[Clip]) -> dict[str, float]:
    """Metrics over clips (see `score_clip` for names and units), summarised, and `clips`, their number."""
    return summarise(
        score_clip(model.encode(clip.video, clip.stamps, clip.aspect_ratio), clip) for clip in clips
    )


def evaluate(
    model: Model, sequence: Sequence, most: int | None = None, span: int = ROTATION_SPAN
) -> dict[str, float]:
    """Metrics of a model on one sequence, cut into windows that do not overlap, each aligned by itself.

    Args:
        model: see `Model`.
        sequence: what of depth, poses, intrinsics and tracks it has decides what is measured.
        most: windows at most, evenly spread; all by default.
        span: frames over which rotation is measured, fewer if the sequence is shorter.

    Raises:
        DataError: the sequence has no window without a gap, or no truth at all.
    """
    scores = evaluate_clips(model, cut_clips(sequence, model.config.frames, most, span))
    if scores["clips"] == 0:
        raise DataError(f"{sequence.name}: no window of frames without a gap")
    if len(scores) == 1:
        raise DataError(f"{sequence.name}: neither depth, poses, intrinsics nor tracks to measure against")
    return scores
