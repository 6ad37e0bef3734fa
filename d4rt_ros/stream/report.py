"""What is to be told about a window: sentences and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

FAILED = " failed: "  # in the note of a step that raised, after its name


@dataclass
class Report:
    """Notes and times of one window; steps that fail become notes."""

    between: Callable[[], None]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, sentence: str) -> None:
        """Add a sentence; an empty one is none."""
        if sentence:
            self.notes.append(sentence)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """What the work gives; None and a note if it fails. Others have their turn afterwards."""
        started = time.perf_counter()
        result = None
        try:
            result = work()
        except Exception as error:  # one output that fails must not take the others with it
            self.note(f"{name}{FAILED}{type(error).__name__}: {error}")
        self.seconds[name] = time.perf_counter() - started
        self.between()
        return result
