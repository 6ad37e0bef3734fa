"""How good the model is: held-out procedural scenes and real sequences, beside baselines that cost nothing.

`python -m bench.accuracy [--checkpoint builtin] [--data DIR] [--quick]`

Every sequence in DIR (default ../shared/eval, if it is there) in a layout that `d4rt eval` reads. Windows
have the model's length and span 15 frames of a recording. Names and units of the metrics:
`d4rt_ros/evaluation/scores.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from bench import machine
from bench.procedural import held_out_clips
from d4rt_ros.evaluation.evaluate import evaluate, evaluate_clips
from d4rt_ros.evaluation.readers import open_sequences
from d4rt_ros.evaluation.sequence import DataError, Sequence
from d4rt_ros.evaluation.table import table
from d4rt_ros.model import D4RT, load_model
from d4rt_ros.model.precision import PRECISIONS, select_device, select_precision

DATA = Path(__file__).resolve().parents[2] / "shared" / "eval"
KEYS = (
    *("absrel", "absrel_constant", "delta125", "rot_deg", "rot_deg_still", "ate"),
    *("track_px", "track_px_still", "visibility_acc", "focal_err"),
)
CLIPS, QUICK_CLIPS, QUICK_WINDOWS = 128, 24, 3


def measure(
    model: D4RT, sequences: list[Sequence], clips: int, windows: int | None
) -> dict[str, dict[str, float]]:
    """Metrics by sequence name, `procedural` always; prints tables on the way, and what had to be refused."""
    results = {"procedural": evaluate_clips(model, held_out_clips(model.config, clips))}
    print(f"procedural: {clips} clips\n{table(results['procedural'])}\n", flush=True)
    for sequence in sequences:
        try:
            results[sequence.name] = evaluate(model, sequence, windows)
        except DataError as error:
            print(error, file=sys.stderr)
            continue
        scores = results[sequence.name]
        print(f"{sequence.name}: {int(scores['clips'])} windows\n{table(scores)}\n", flush=True)
    return results


def line(results: dict[str, dict[str, float]], everything: bool) -> dict[str, object]:
    """For the JSON line: the main figures of every sequence, null where its truth does not tell."""
    out: dict[str, object] = {}
    for name, scores in results.items():
        kept = {key: scores.get(key) for key in KEYS}
        out[name] = machine.rounded({**kept, **scores} if everything else {**kept, "clips": scores["clips"]})
    return out


def main() -> None:
    """Print tables, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", default="builtin", help="weights (default: the built-in model)")
    parser.add_argument(
        "--data", type=Path, help="folder of sequences (default: ../shared/eval if it is there)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)}")
    parser.add_argument("--all", action="store_true", help="every metric in the JSON, not only the main ones")
    parser.add_argument(
        "--quick", action="store_true", help="fewer clips and windows: under a minute on two cores"
    )
    args = parser.parse_args()
    data, sequences = args.data or (DATA if DATA.is_dir() else None), []
    if data is not None:
        try:
            sequences = open_sequences(data, lambda sentence: print(sentence, file=sys.stderr))
        except DataError as error:
            if args.data:  # before minutes of what was not asked for
                parser.error(str(error))
            print(error, file=sys.stderr)
    start = time.perf_counter()
    device = select_device(args.device)
    precision = select_precision(args.precision, device)
    model = load_model(args.checkpoint, device, precision)
    clips, windows = (QUICK_CLIPS, QUICK_WINDOWS) if args.quick else (CLIPS, None)
    with torch.inference_mode():
        results = measure(model, sequences, clips, windows)
    print(
        json.dumps(
            {
                "bench": "accuracy",
                **line(results, args.all),
                "seconds": round(time.perf_counter() - start, 1),
                "checkpoint": str(args.checkpoint),
                "frames": model.config.frames,
                "precision": str(precision).removeprefix("torch."),
                "quick": args.quick,
                **machine.describe(device),
            }
        )
    )


if __name__ == "__main__":
    main()
