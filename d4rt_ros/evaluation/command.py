"""`d4rt eval DIR`: a model on every sequence of a folder, beside baselines that cost nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from d4rt_ros.evaluation.clip import ROTATION_SPAN
from d4rt_ros.evaluation.evaluate import evaluate
from d4rt_ros.evaluation.readers import open_sequences
from d4rt_ros.evaluation.sequence import DataError
from d4rt_ros.evaluation.table import table
from d4rt_ros.model import load_model
from d4rt_ros.model.precision import PRECISIONS, select_device, select_precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "dir",
        type=Path,
        metavar="DIR",
        help="a sequence, or a folder of them: 7-Scenes, TUM RGB-D, EuRoC, KITTI, TAPVid-3D .npz",
    )
    parser.add_argument("--checkpoint", default="builtin", help="weights (default: the built-in model)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)}")
    parser.add_argument(
        "--windows", type=int, metavar="N", help="at most N windows a sequence, evenly spread"
    )
    parser.add_argument(
        "--span",
        type=int,
        default=ROTATION_SPAN,
        help="frames from a window's first to its last (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")


def main(args: argparse.Namespace) -> int:
    """Print a table a sequence; 0 if all were measured, 1 if some had to be refused.

    Raises:
        ValueError: an argument out of range, weights that do not load, no sequence that can be measured.
        OSError: the file of figures cannot be written.
    """
    for name in ("windows", "span"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}, it has to be at least 1")
    refused: list[str] = []

    def refuse(sentence: str) -> None:
        refused.append(sentence)
        print(f"d4rt eval: {sentence}", file=sys.stderr)

    sequences = open_sequences(args.dir, refuse)
    device = select_device(args.device)
    model = load_model(args.checkpoint, device, select_precision(args.precision, device))
    if args.json:
        args.json.open("a").close()  # what cannot be written should not turn out when all is measured
    results: dict[str, dict[str, float]] = {}
    for sequence in sequences:
        try:
            scores = evaluate(model, sequence, args.windows, args.span)
        except DataError as error:
            refuse(str(error))
            continue
        results[sequence.name] = scores
        print(f"{sequence.name} ({sequence.layout}): {len(sequence)} frames, {int(scores['clips'])} windows")
        for note in sequence.notes:
            print(f"  {note}")
        print(table(scores) + "\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"sequences": results, "refused": refused}, indent=1) + "\n")
    if not results:
        raise DataError(f"{args.dir}: no sequence could be measured")
    return 1 if refused else 0
