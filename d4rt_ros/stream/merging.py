"""Requests on the same scene are decoded together and their answers split again."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from d4rt_ros.model import Answers, Queries, SceneLike

MERGE_POINTS = 16_384  # a small request is not held up by more points than this of other clients


@dataclass(frozen=True)
class DecodeJob:
    """One client's queries (any 1-D count) on one scene."""

    scene: SceneLike
    queries: Queries

    def __len__(self) -> int:
        """Number of queries."""
        return self.queries.u.numel()


def run_decodes(jobs: list[DecodeJob]) -> tuple[list[Answers | Exception], int]:
    """Answers of every job, in order; a job that fails has its exception there and spoils no other.

    Returns:
        The outcomes, and how many jobs shared a decode with another one.
    """
    outcomes: list[Answers | Exception] = [RuntimeError("not decoded")] * len(jobs)
    merged = 0
    for group in _groups(jobs):
        if len(group) > 1:
            try:
                parts = _decode_together([jobs[i] for i in group])
            except Exception:  # one of them is to blame; each is tried on its own below
                pass
            else:
                merged += len(group)
                for i, part in zip(group, parts):
                    outcomes[i] = part
                continue
        for i in group:
            try:
                outcomes[i] = jobs[i].scene.decode(jobs[i].queries)
            except Exception as error:
                outcomes[i] = error
    return outcomes, merged


def _groups(jobs: list[DecodeJob]) -> list[list[int]]:
    """Indices of jobs on one scene, in order; where more than one, together at most MERGE_POINTS queries."""
    groups: list[list[int]] = []
    open_group: dict[int, tuple[list[int], int]] = {}
    for i, job in enumerate(jobs):
        members, size = open_group.get(id(job.scene), ([], 0))
        if not members or size + len(job) > MERGE_POINTS:
            members, size = [], 0
            groups.append(members)
        members.append(i)
        open_group[id(job.scene)] = (members, size + len(job))
    return groups


def _decode_together(jobs: list[DecodeJob]) -> list[Answers]:
    cls = type(jobs[0].queries)
    joined = cls(
        **{f.name: torch.cat([getattr(job.queries, f.name) for job in jobs]) for f in fields(jobs[0].queries)}
    )
    answers = jobs[0].scene.decode(joined)
    sizes = [len(job) for job in jobs]
    parts = {f.name: getattr(answers, f.name).split(sizes) for f in fields(answers)}
    return [type(answers)(**{name: values[i] for name, values in parts.items()}) for i in range(len(jobs))]
