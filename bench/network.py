"""How much of the machine the network uses: encode and decode against the measured matrix-product rate.

`python -m bench.network [--size giant --device cuda:0 --precision bfloat16] [--quick]`
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch

from bench import machine, peer
from d4rt_ros.model import D4RT, Queries, Scene, load_model, named_config
from d4rt_ros.model.config import NAMES
from d4rt_ros.model.flops import encode_flops, keys_values_flops, query_flops
from d4rt_ros.model.precision import PRECISIONS, measure, select_device, select_precision

COUNTS = (64, 1024, 16384)


def random_queries(scene: Scene, count: int) -> Queries:
    """`count` random queries on the scene's device."""
    u, v = torch.rand(2, count, device=scene.device)
    times = torch.randint(scene.num_frames, (3, count), device=scene.device)
    return Queries(u, v, *times)


def measure_ours(model: D4RT, seconds: float, gflops: float) -> dict[str, object]:
    """Encode and decode times of one window of full length."""
    config, device = model.config, model.device
    video = torch.randint(256, (config.frames, 3, *config.image_size), dtype=torch.uint8)
    scene = model.encode(video)
    encode = measure(lambda: model.encode(video), device, seconds)
    result: dict[str, object] = {
        "encode_ms": encode * 1e3,
        "encode_share": encode_flops(config) / encode / 1e9 / gflops,
    }
    small = video[None].to(device) / 255
    memory = model.memory(small, torch.ones(1, device=device), model.paths(small))
    for count in COUNTS:
        queries = random_queries(scene, count)

        def uncached(queries: Queries = queries) -> None:
            again = replace(scene, memory=model.decoder.keys_values(memory))
            again.decode(queries)

        cached = measure(lambda queries=queries: scene.decode(queries), device, seconds)  # type: ignore[misc]
        without = measure(uncached, device, seconds)
        work = count * query_flops(config)
        result[f"decode_qps_{count}"] = count / cached
        result[f"decode_share_{count}"] = work / cached / 1e9 / gflops
        result[f"decode_qps_{count}_uncached"] = count / without
        result[f"cache_gain_{count}"] = without / cached
        result[f"cache_gain_{count}_predicted"] = (work + keys_values_flops(config)) / work
    result["decode_share"] = result[f"decode_share_{COUNTS[-1]}"]
    return result


def measure_peer(model: D4RT, seconds: float) -> dict[str, object]:
    """Both in turn at equal parameters, tokens and query counts; ratios above 1: ours is faster.

    Ours in the precision that it chose, the peer as it comes (float32); and with the peer under autocast to
    our precision, where that is another one.
    """
    config, device = model.config, model.device
    other = peer.build(config, device)
    video = torch.randint(256, (config.frames, 3, *config.image_size), dtype=torch.uint8)
    scene, memory = model.encode(video), other.encode()
    queries = random_queries(scene, COUNTS[-1])
    encode = measure(lambda: model.encode(video), device, seconds)
    decode = measure(lambda: scene.decode(queries), device, seconds)
    result: dict[str, object] = {"pypi_parameters": other.parameters}
    for name, dtype in (("", torch.float32), ("_same_precision", model.precision)):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            result[f"pypi_encode_ratio{name}"] = measure(other.encode, device, seconds) / encode
            theirs = measure(lambda: other.decode(memory, COUNTS[-1]), device, seconds)
            result[f"pypi_decode_ratio{name}"] = theirs / decode
    return result


def main() -> None:
    """Print progress, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=NAMES, default="builtin")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)}")
    parser.add_argument("--quick", action="store_true", help="under a minute on two cores")
    args = parser.parse_args()
    device = select_device(args.device)
    dtype = select_precision(args.precision, device)
    seconds = 1.0 if args.quick else 5.0
    if args.size == "builtin":
        model = load_model("builtin", device, dtype)
    else:
        model = D4RT(named_config(args.size)).to(device).set_precision(dtype).eval().requires_grad_(False)
    with torch.inference_mode():
        gflops = machine.matmul_gflops(device, dtype)
        result: dict[str, object] = {
            "size": args.size,
            "precision": str(dtype).removeprefix("torch."),
            **machine.describe(device),
            "parameters": sum(p.numel() for p in model.parameters()),
            "gemm_gflops": gflops,
            "copy_gbytes": machine.copy_gbytes(device),
            **measure_ours(model, seconds, gflops),
        }
        if args.size == "builtin":
            result.update(measure_peer(model, seconds))
    result["peak_memory_mib"] = machine.peak_memory_mib(device)
    for key, value in machine.rounded(result).items():
        print(f"{key:28} {value}")
    print(json.dumps(machine.rounded(result)))


if __name__ == "__main__":
    main()
