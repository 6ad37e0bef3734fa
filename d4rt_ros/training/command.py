"""`d4rt train`: run or resume a training recipe."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from d4rt_ros.model.precision import select_device
from d4rt_ros.training.loop import train
from d4rt_ros.training.recipe import load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `d4rt train`."""
    parser.add_argument(
        "config",
        help="recipe: a YAML file, or one of the package by name, such as builtin or finetune_opend4rt",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/d4rt"), help="folder of checkpoints and log")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument(
        "--minutes", type=float, help="stop, annealed, after so many minutes of training in all"
    )
    parser.add_argument("--steps", type=int, help="length of the run instead of the recipe's")
    parser.add_argument("--start-from", help="weights to begin with instead of the recipe's")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")


def main(args: argparse.Namespace) -> int:
    """Train; returns the exit status. Raises ValueError for what does not fit and for a run that diverges."""
    device = select_device(args.device)
    if args.resume and args.start_from is not None:
        raise ValueError("--start-from is for a new run: --resume goes on from the weights in --out")
    recipe = load_recipe(args.config)
    if args.steps is not None:
        recipe = replace(recipe, steps=args.steps)
    if args.start_from is not None:
        recipe = replace(recipe, start_from=args.start_from)
    if "OMP_NUM_THREADS" not in os.environ and recipe.feed.workers and device.type == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        trainer = train(recipe, args.out, resume=args.resume, minutes=args.minutes, device=device)
    except FloatingPointError as error:  # of the recipe's making, most likely: no fault of ours to trace
        raise ValueError(f"{error}; a lower optimiser.lr or muon_lr may help") from error
    print(
        f"{trainer.step} steps in {trainer.seconds / 60:.1f} min; "
        f"weights in {args.out / 'weights.safetensors'}"
    )
    return 0
