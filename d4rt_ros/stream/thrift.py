"""Goes on with less when the device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch

from d4rt_ros.stream.wrapped import WrappedScene

if TYPE_CHECKING:
    from d4rt_ros.model import Answers, Queries

LEAST_BATCH = 64  # queries; less than that does not save memory worth the name
PATIENCE = 8  # decodes that fit before twice as much is tried again
_WHOLE = 1 << 30

Result = TypeVar("Result")


class DeviceOutOfMemory(RuntimeError):
    """The device has not the memory for even the smallest step; the message says for which."""


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors that torch and Python raise when memory is exhausted."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_cached(device: torch.device) -> None:
    """Give memory that torch keeps in reserve back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def retried(
    work: Callable[[], Result], what: str, device: torch.device, make_room: Callable[[], None]
) -> Result:
    """Do the work; if memory runs out, make room and do it once more.

    Raises:
        DeviceOutOfMemory: it ran out again; the message names `what`.
    """
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: the traceback would keep the failed step's tensors alive.
    make_room()
    free_cached(device)
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceOutOfMemory(f"{device} is out of memory: not enough for {what}") from None


@dataclass
class BatchLimit:
    """Largest batch that the device took lately; shared by the scenes of one pipeline."""

    queries: int = _WHOLE
    fitted: int = 0

    def shrink(self, tried: int) -> None:
        """A batch of `tried` queries did not fit."""
        self.queries = max(LEAST_BATCH, tried // 2)
        self.fitted = 0

    def grow(self) -> None:
        """All batches of a decode fitted; after some of those the next may try twice as much."""
        self.fitted += 1
        if self.fitted >= PATIENCE:
            self.queries, self.fitted = min(_WHOLE, self.queries * 2), 0


@dataclass(frozen=True)
class ThriftyScene(WrappedScene):
    """A scene that decodes in smaller batches when memory runs out, and in larger ones again later.

    Attributes:
        scene: what answers.
        limit: how much is tried at once.
    """

    limit: BatchLimit

    def decode(self, queries: Queries) -> Answers:
        """Answers to queries [N] in order.

        Raises:
            DeviceOutOfMemory: not even the smallest batch fits.
            ValueError: as the scene does.
        """
        total, start, parts = queries.u.shape[0], 0, []
        while True:
            size = min(self.limit.queries, total - start)
            part = self._try(queries, start, size)
            if part is None:
                if size <= LEAST_BATCH:
                    raise DeviceOutOfMemory(
                        f"{self.device} is out of memory: not enough to decode {size} queries"
                    )
                self.limit.shrink(size)
                free_cached(self.device)
                continue
            parts.append(part)
            start += size
            if start >= total:
                break
        self.limit.grow()
        if len(parts) == 1:
            return parts[0]
        return type(parts[0])(
            **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(parts[0])}
        )

    def _try(self, queries: Queries, start: int, size: int) -> Answers | None:
        """Answers of one batch; None where memory ran out."""
        try:
            if size == queries.u.shape[0]:
                return self.scene.decode(queries)
            return self.scene.decode(queries.apply(lambda x: x[start : start + size]))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
