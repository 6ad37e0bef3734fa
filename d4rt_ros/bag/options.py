"""Arguments that `d4rt bag` and `d4rt video` share, and what they make."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from d4rt_ros.bag.writing import STORAGES
from d4rt_ros.model.yaml_text import load_yaml
from d4rt_ros.node.parameters import BY_NAME, Value, defaults, refusal
from d4rt_ros.outputs import TOPICS

EPILOG = (
    "Killed or stopped, a run goes on where it was when the same command is given again; what it has done "
    "is kept in OUT.part until then. Exit codes: 0 done; 2 wrong arguments or input; 3 done, but the input "
    "is damaged and was used only up to the damage; 130 stopped with Ctrl-C."
)

# Nobody else writes transforms into the new bag, so the camera's pose is in it unless told otherwise.
OFFLINE_DEFAULTS: dict[str, Value] = {"tf.mode": "world_to_camera"}


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = EPILOG
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="rosbag2 folder to write; a single file where it ends in .mcap or .db3",
    )
    parser.add_argument("--storage", choices=sorted(STORAGES), help="default: by the name of OUT, else mcap")
    parser.add_argument(
        "--topics",
        nargs="+",
        choices=sorted(TOPICS),
        default=list(TOPICS),
        metavar="TOPIC",
        help=f"outputs to write (default: all): {', '.join(TOPICS)}",
    )
    parser.add_argument("--checkpoint", help="weights: short for --set model.checkpoint=...")
    parser.add_argument("--device", help="auto, cpu or cuda:N: short for --set model.device=...")
    parser.add_argument("--params", type=Path, help="parameter file of the node (see config/d4rt.yaml)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the node, as window.stride=4; may be repeated, and goes before --params",
    )


def read_parameters(args: argparse.Namespace) -> dict[str, Value]:
    """Value of every parameter of the node, from the arguments.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no parameter file, a name is unknown or a value is not allowed.
    """
    given: dict[str, object] = dict(_from_file(args.params)) if args.params else {}
    short = [f"model.{name}={value}" for name in ("checkpoint", "device") if (value := getattr(args, name))]
    for assignment in [*args.set, *short]:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set {assignment}: it must be NAME=VALUE")
        try:
            given[name] = value if name in BY_NAME and BY_NAME[name].kind == "str" else load_yaml(value)
        except (ValueError, yaml.YAMLError):  # the former of a date that no calendar has
            raise ValueError(f"--set {assignment}: the value is no YAML") from None
    values: dict[str, object] = {**defaults(), **OFFLINE_DEFAULTS}
    for name, value in given.items():
        if name not in BY_NAME:
            raise ValueError(f"no parameter is called '{name}'; there are {', '.join(BY_NAME)}")
        if isinstance(value, int) and not isinstance(value, bool) and BY_NAME[name].kind == "float":
            value = float(value)
        values[name] = value
    if reason := refusal(values):
        raise ValueError(reason)
    return values  # type: ignore[return-value]  # refusal() has checked the types


def _from_file(path: Path) -> dict[str, object]:
    """Parameters of a file of ROS 2 as {"window.length": 8}; nested names are joined."""
    try:
        tree = load_yaml(path.read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    nodes = tree.values() if isinstance(tree, dict) else ()
    sections = [
        node["ros__parameters"] for node in nodes if isinstance(node, dict) and "ros__parameters" in node
    ]
    if not sections:
        raise ValueError(f"{path} holds no ros__parameters")
    flat: dict[str, object] = {}

    def add(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add(f"{prefix}.{name}" if prefix else str(name), inner)
        else:
            flat[prefix] = value

    for section in sections:
        add("", section)
    flat.pop("use_sim_time", None)  # every node has it; there is no clock here
    return flat
