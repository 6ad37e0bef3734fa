"""`d4rt bag IN OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d4rt_ros import __version__
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.bag.options import add_shared_arguments, read_parameters
from d4rt_ros.bag.recording import Recording, storage_files
from d4rt_ros.bag.run import Job, run, storage_for
from d4rt_ros.bag.sources import BagFrames, Source
from d4rt_ros.bag.topics import choose_topics
from d4rt_ros.model.checkpoints import BUILTIN, load_model
from d4rt_ros.model.precision import select_device, select_precision
from d4rt_ros.node.parameters import Value, stream_settings
from d4rt_ros.outputs import Outputs
from d4rt_ros.stream import Pipeline
from d4rt_ros.stream.world import Mount, unmounted

if TYPE_CHECKING:
    from d4rt_ros.model import D4RT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("input", type=Path, metavar="IN", help="rosbag2: a folder, or an .mcap or .db3 file")
    parser.add_argument(
        "--image", default="", help="topic of the images; default: the only colour images there are"
    )
    parser.add_argument("--camera-info", default="", help="its topic, or none; default: beside the images")
    parser.add_argument("--depth", default="", help="topic of depth images, for scale.source=depth")
    add_shared_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the pipeline over a bag; returns the exit code."""
    values = read_parameters(args)
    base, scale = str(values["frames.base"]), values["scale.source"]
    if args.depth and scale != "depth":
        raise ValueError(f"--depth {args.depth} is for --set scale.source=depth, not '{scale}'")
    with Recording(args.input) as recording:
        topics = choose_topics(
            recording.types(),
            args.image,
            args.camera_info,
            args.depth,
            with_depth=scale == "depth",
            with_transforms=scale == "odometry" or bool(base),
        )
        types = BagMessages()
        source = BagFrames(
            recording,
            topics,
            types,
            base,
            str(values["frames.odom"]),
            rectified=bool(values["image_rectified"]),
        )
        return process(args, values, types, source, {"read": topics.all()}, source.mount)


def process(
    args: argparse.Namespace,
    values: dict[str, Value],
    types: BagMessages,
    source: Source,
    extra: dict[str, Any],
    mount: Mount = unmounted,
) -> int:
    """What both commands do once they have a source of frames.

    Args:
        args: the arguments.
        values: of the node's parameters.
        types: message classes.
        source: frames.
        extra: what the result depends on besides the input's files and the parameters.
        mount: where the robot's base is in the camera.
    """
    outputs = Outputs(types, str(values["frames.world"]), str(values["frames.base"]), str(values["tf.mode"]))
    storage = storage_for(args.out, args.storage)
    network = load_network(values)
    checkpoint = str(values["model.checkpoint"])
    weights = BUILTIN if checkpoint == "builtin" else Path(checkpoint).expanduser()
    identity = {
        "version": __version__,
        "input": fingerprint(args.input),
        "parameters": values,
        "weights": fingerprint(weights),
        "device and precision": [network.device.type, str(network.precision)],  # "auto" may choose anew
        "outputs": list(args.topics),
        "storage": storage,
        **extra,
    }
    settings = stream_settings(values, network.config.frames)
    job = Job(args.out, storage, settings, outputs, types, tuple(args.topics), identity)

    return run(job, source, lambda: Pipeline(network, settings, mount))


def load_network(values: dict[str, Value]) -> D4RT:
    """The network that the parameters name.

    Raises:
        ValueError: no such device, precision or checkpoint.
    """
    device = select_device(str(values["model.device"]))
    precision = select_precision(str(values["model.precision"]), device)
    return load_model(str(values["model.checkpoint"]), device, precision)


def fingerprint(path: Path) -> list[list[Any]]:
    """Path, size and time of change of a file or of the files of a bag or folder.

    Not of folders in it: an output that is written there is none of the input.
    """
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = storage_files(path) or sorted(file for file in path.iterdir() if file.is_file())
    return [[str(path.absolute())]] + [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files
    ]
