"""The `d4rt` command: everything that needs no ROS.

Exit codes: 0 done; 2 wrong arguments or input, told in one line; 3 `d4rt bag` read its input only up to a
damage; 130 stopped with Ctrl-C (`d4rt train` saves what it has learnt, and ends with 0). A part of the
package is imported only when its subcommand is named.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

# Subcommand: the module with its add_arguments(parser) and main(args) -> int, and its line in --help.
COMMANDS = {
    "bag": (
        "d4rt_ros.bag.command",
        "run the node's pipeline over a rosbag2 and write its outputs as a rosbag2",
    ),
    "video": ("d4rt_ros.bag.video_command", "the same over a video file or a folder of images"),
    "eval": ("d4rt_ros.evaluation.command", "measure depth, poses and tracks against ground truth"),
    "weights": ("d4rt_ros.model.weights_command", "convert or check a checkpoint"),
    "train": ("d4rt_ros.training.command", "train on procedural scenes"),
}

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Parser of the whole command; only the chosen subcommand has its arguments.

    Args:
        chosen: name in COMMANDS whose module is imported; None: none is.
    """
    parser = argparse.ArgumentParser(
        prog="d4rt", description="4D perception of camera recordings: depth, points, tracks and camera poses."
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == chosen:
            part = importlib.import_module(module)
            part.add_arguments(command)
            command.set_defaults(main=part.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code (see the top of this file).

    Args:
        argv: the arguments; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        args = build_parser(chosen).parse_args(arguments)
        return int(args.main(args))
    except KeyboardInterrupt:
        print("d4rt: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        print(f"d4rt {chosen}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
