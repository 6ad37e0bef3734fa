"""How much of the machine the network uses: encode and decode against the measured matrix-product rate.

`python -m bench.network [--size giant --device cuda:0 --precision bfloat16] [--quick]`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bench import machine, peer
from d4rt_ros.model import D4RT, Queries, Scene, load_model, named_config
from d4rt_ros.model.config import NAMES
from d4rt_ros.model.flops import encode_flops, keys_values_flops, query_flops
from d4rt_ros.model.precision import PRECISIONS, measure_together, select_device, select_precision

COUNTS = (64, 1024, 16384)


def random_queries(scene: Scene, count: int) -> Queries:
    """`count` random queries on the scene's device."""
    u, v = torch.rand(2, count, device=scene.device)
    times = torch.randint(scene.num_frames, (3, count), device=scene.device)
    return Queries(u, v, *times)


def measure_all(model: D4RT, seconds: float, with_peer: bool) -> dict[str, object]:
    """Everything in turn, round by round; every figure is the median over the rounds, of ratios too.

    One window of full length. Shares are of the fastest matrix product of the same round. `pypi_*` compare
    with the peer at equal parameters, tokens and query counts, above 1 ours is faster: ours in the precision
    that it chose, the peer as it comes (float32), and under autocast to our precision.
    """
    config, device = model.config, model.device
    video = torch.randint(256, (config.frames, 3, *config.image_size), dtype=torch.uint8)
    scene, small = model.encode(video), video[None].to(device) / 255
    memory = model.encoded(small, torch.ones(1, device=device)).memory
    products = machine.products(device, model.precision)
    calls: dict[str, Callable[[], object]] = {name: product.run for name, product in products.items()}
    calls["encode"] = partial(model.encode, video)
    calls["settle"] = lambda: replace(scene).settled  # before a window's first answer; once
    for count in COUNTS:
        queries = random_queries(scene, count)

        def uncached(queries: Queries = queries) -> None:
            other = copy(scene)  # with what was settled once
            object.__setattr__(other, "memory", model.decoder.keys_values(memory))
            other.decode(queries)

        calls[f"cached {count}"], calls[f"uncached {count}"] = partial(scene.decode, queries), uncached
    result: dict[str, object] = {}
    precisions = {"": torch.float32, "_same_precision": model.precision} if with_peer else {}
    if with_peer:
        other = peer.build(config, device)
        theirs = other.encode()
        result["pypi_parameters"] = other.parameters
        for name, dtype in precisions.items():
            cast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
            calls[f"their encode{name}"] = cast(other.encode)
            calls[f"their decode{name}"] = cast(partial(other.decode, theirs, COUNTS[-1]))
    times = {name: torch.tensor(t) for name, t in measure_together(calls, device, seconds).items()}

    def median(values: Tensor) -> float:
        return float(values.median())

    rates = [product.operations / times[name] / 1e9 for name, product in products.items()]
    peak = torch.stack(rates).amax(dim=0)  # of each round
    result["gemm_gflops"] = median(peak)
    result["encode_ms"] = median(times["encode"]) * 1e3
    result["encode_share"] = median(encode_flops(config) / times["encode"] / 1e9 / peak)
    result["settle_ms"] = median(times["settle"]) * 1e3
    for count in COUNTS:
        cached, without, work = (
            times[f"cached {count}"],
            times[f"uncached {count}"],
            count * query_flops(config),
        )
        result[f"decode_qps_{count}"] = count / median(cached)
        result[f"decode_share_{count}"] = median(work / cached / 1e9 / peak)
        result[f"decode_qps_{count}_uncached"] = count / median(without)
        result[f"cache_gain_{count}"] = median(without / cached)
        result[f"cache_gain_{count}_predicted"] = (work + keys_values_flops(config)) / work
    result["decode_share"] = result[f"decode_share_{COUNTS[-1]}"]
    for name in precisions:
        result[f"pypi_encode_ratio{name}"] = median(times[f"their encode{name}"] / times["encode"])
        result[f"pypi_decode_ratio{name}"] = median(
            times[f"their decode{name}"] / times[f"cached {COUNTS[-1]}"]
        )
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
        result: dict[str, object] = {
            "size": args.size,
            "precision": str(dtype).removeprefix("torch."),
            **machine.describe(device),
            "parameters": sum(p.numel() for p in model.parameters()),
            "copy_gbytes": machine.copy_gbytes(device),
            **measure_all(model, seconds, with_peer=args.size == "builtin"),
        }
    result["peak_memory_mib"] = machine.peak_memory_mib(device)
    for key, value in machine.rounded(result).items():
        print(f"{key:28} {value}")
    print(json.dumps(machine.rounded(result)))


if __name__ == "__main__":
    main()
