"""`d4rt video IN OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from d4rt_ros.bag.command import process
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.bag.options import add_shared_arguments, read_parameters
from d4rt_ros.bag.video import VideoFrames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "input", type=Path, metavar="IN", help="video file, or folder of images in the order of names"
    )
    parser.add_argument(
        "--fps", type=float, default=0.0, help="frames per second; default: the video's, 30 for a folder"
    )
    parser.add_argument(
        "--frame-id", default="camera_optical_frame", help="camera's frame (default: %(default)s)"
    )
    add_shared_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the pipeline over a video; returns the exit code.

    Raises ValueError for parameters that need depth or transforms, as `d4rt bag` does where there are none.
    """
    values = read_parameters(args)
    for name in ("scale.source", "frames.base"):
        if (value := values[name]) not in ("", "none", "fixed"):
            raise ValueError(f"{name} is '{value}', but a video has neither depth images nor transforms")
    source = VideoFrames(args.input, args.fps, args.frame_id)
    return process(args, values, BagMessages(), source, {"fps": source.fps, "frame_id": args.frame_id})
