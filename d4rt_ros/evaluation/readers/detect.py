"""Find every readable sequence under a folder, whatever its layout."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from d4rt_ros.evaluation.readers import euroc, kitti, seven_scenes, tapvid3d, tum
from d4rt_ros.evaluation.readers.checks import check_depth
from d4rt_ros.evaluation.sequence import DataError, Sequence

_log = logging.getLogger(__name__)
_DEPTH = 4


class _Layout(Protocol):
    def matches(self, path: Path) -> bool:
        """True if this is one sequence of the layout."""

    def read(self, path: Path) -> Sequence:
        """Read it, or raise DataError."""


LAYOUTS: tuple[_Layout, ...] = (seven_scenes, tum, euroc, kitti, tapvid3d)


def open_sequences(folder: str | Path, refuse: Callable[[str], None] = _log.warning) -> list[Sequence]:
    """Open all sequences in a folder (one sequence, or folders of them up to four deep).

    Known layouts: 7-Scenes, TUM RGB-D, EuRoC, KITTI odometry, KITTI with velodyne depth, TAPVid-3D (.npz).

    Args:
        folder: where to look.
        refuse: told, in a sentence that begins with its name, about every sequence that is broken.

    Returns:
        The sound ones, in order of path, with different names.

    Raises:
        DataError: nothing to look at, no sequence of a known layout, or every one of them is broken.
    """
    root = Path(folder).resolve()
    if not root.exists():
        raise DataError(f"{folder}: no such folder")
    opened: list[tuple[Path, Sequence]] = []
    refusals: list[str] = []
    for path, layout in _places(root, _DEPTH):
        try:
            sequence = layout.read(path)
            check_depth(sequence)
            opened.append((path, sequence))
        except Exception as error:  # files of others can be wrong in any way, and the rest is to be measured
            known = isinstance(error, (DataError, OSError))
            refusals.append(str(error) if known else f"{path}: {type(error).__name__}: {error}")
            refuse(refusals[-1])
    if not opened:
        layouts = "7-Scenes, TUM RGB-D, EuRoC, KITTI or TAPVid-3D"
        raise DataError("; ".join(refusals) or f"{root}: no sequence in the layout of {layouts}")
    return _with_different_names(opened)


def _places(path: Path, depth: int) -> Iterator[tuple[Path, _Layout]]:
    for layout in LAYOUTS:
        if layout.matches(path):
            yield path, layout
            return
    if depth > 0 and path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith(".") and (child.is_dir() or child.suffix == ".npz"):
                yield from _places(child, depth - 1)


def _with_different_names(opened: list[tuple[Path, Sequence]]) -> list[Sequence]:
    """Those of one name (7-Scenes calls all of its folders seq-01 and so on) take their parent's, too."""
    names = Counter(sequence.name for _, sequence in opened)
    seen: Counter[str] = Counter()
    out = []
    for path, sequence in opened:
        name = sequence.name if names[sequence.name] == 1 else f"{path.parent.name}/{sequence.name}"
        seen[name] += 1
        out.append(replace(sequence, name=name if seen[name] == 1 else f"{name}#{seen[name]}"))
    return out
