"""`d4rt train`: run or resume a training recipe."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def main(args: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    recipe = load_recipe(args.config)
    if args.steps is not None:
        recipe = replace(recipe, steps=args.steps)
    if args.start_from is not None:
        recipe = replace(recipe, start_from=args.start_from)
    if "OMP_NUM_THREADS" not in os.environ and recipe.feed.workers and args.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    trainer = train(recipe, args.out, resume=args.resume, minutes=args.minutes, device=args.device)
    print(
        f"{trainer.step} steps in {trainer.seconds / 60:.1f} min; "
        f"weights in {args.out / 'weights.safetensors'}"
    )
    return 0
