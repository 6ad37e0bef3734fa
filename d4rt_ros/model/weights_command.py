"""`d4rt weights convert` and `d4rt weights check`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from d4rt_ros.model.checkpoints import CheckpointError, load_model, save_weights
from d4rt_ros.model.config import read_config
from d4rt_ros.model.embedding import from_network
from d4rt_ros.model.network import D4RT
from d4rt_ros.model.precision import PRECISIONS
from d4rt_ros.model.queries import Queries

# Names of the six outputs in a file of golden numbers.
_OUTPUTS = {
    "xyz": "out.xyz_3d",
    "uv": "out.uv_2d",
    "visibility": "out.visibility",
    "displacement": "out.displacement",
    "normal": "out.normal",
    "confidence": "out.confidence",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of both commands."""
    commands = parser.add_subparsers(dest="weights_command", required=True)
    convert = commands.add_parser("convert", help="write a checkpoint as safetensors")
    convert.add_argument("input", type=Path, help="OpenD4RT .ckpt, .safetensors, or a folder of parts")
    convert.add_argument("output", type=Path, help=".safetensors file, or a folder for parts under 16 MiB")
    convert.add_argument("--precision", choices=tuple(PRECISIONS), default="bfloat16")
    convert.add_argument("--config", type=Path, help="model.yaml or config.json, if not beside the input")
    check = commands.add_parser("check", help="compare a network's answers with recorded ones")
    check.add_argument("input", type=Path, help="weights")
    check.add_argument("--config", type=Path, help="config.json or model.yaml of the weights")
    check.add_argument("--io", type=Path, required=True, help="safetensors with inputs and expected outputs")
    check.add_argument("--tolerance", type=float, default=1e-4, help="largest absolute error (default 1e-4)")


def main(args: argparse.Namespace) -> int:
    """Run one of them; 0 when done or in agreement, 1 beyond the tolerance.

    Raises CheckpointError or ValueError for files that cannot be used.
    """
    config = read_config(args.config) if args.config else None
    if args.weights_command == "convert":
        model = load_model(args.input, config=config)
        largest = max(float(tensor.abs().max()) for tensor in model.state_dict().values())
        if largest > torch.finfo(PRECISIONS[args.precision]).max:
            raise ValueError(
                f"{args.input}: weights of up to {largest:g} do not fit into {args.precision}; take another"
            )
        save_weights(model, args.output, PRECISIONS[args.precision])
        print(f"{args.output}: {len(model.state_dict())} tensors in {args.precision}")
        return 0
    errors = compare(load_model(args.input, config=config), args.io)
    agrees = all(error <= args.tolerance for error in errors.values())  # NaN never agrees
    print(json.dumps({**errors, "tolerance": args.tolerance, "agrees": agrees}))
    return 0 if agrees else 1


def compare(model: D4RT, path: Path) -> dict[str, float]:
    """Largest absolute error of each output over a file of inputs and outputs, through a cached scene.

    Keys are "memory" (where the file has it) and the six heads. Raises CheckpointError naming the file.
    """
    try:
        io = load_file(path)
        video = io["video"]
        times = (io["t_src"], io["t_tgt"], io["t_cam"])
        expected = {name: io[key] for name, key in _OUTPUTS.items()}
        uv = torch.stack((io["u"], io["v"]), dim=-1)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a file of inputs and outputs ({error})") from error
    config = model.config
    u, v = from_network(uv.double(), config.image_size, config.corner_pixels).unbind(-1)
    scene = model.encode(video, aspect_ratio=io.get("aspect_ratio"))
    raw = scene.decode_raw(Queries(u.float(), v.float(), *times))
    if "memory" in io:
        with torch.inference_mode():
            aspect = io.get("aspect_ratio", torch.ones(len(video)))
            raw = {"memory": model.encoded(video, aspect).memory, **raw}
        expected = {"memory": io["memory"], **expected}
    for name, wanted in expected.items():  # they might stretch to each other
        if raw[name].shape != wanted.shape:
            shapes = f"{list(wanted.shape)}, the network's {list(raw[name].shape)}"
            raise CheckpointError(f"{path}: {name} is {shapes}: recorded from a network of another size")
    return {name: float((raw[name] - wanted).abs().max()) for name, wanted in expected.items()}
