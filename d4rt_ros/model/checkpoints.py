"""Weights from and to files: ours (safetensors with the configuration inside) and OpenD4RT's.

Nothing in a file is ever executed: pickles are read with torch's weights_only unpickler, memory-mapped, so
that optimiser state beside the weights costs neither time nor memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d4rt_ros.model.allocator import keep_freed_memory
from d4rt_ros.model.config import ModelConfig, named_config, read_config
from d4rt_ros.model.network import D4RT

BUILTIN = Path(__file__).parent / "weights"
PART_BYTES = 15 << 20
_WRAPPERS = ("state_dict", "model", "module", "network", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
_PART = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MARK = "decoder.out_norm.weight"  # a name that every D4RT state has


class CheckpointError(ValueError):
    """A weights file is missing, damaged or of another network; the message names the file."""


def load_model(
    checkpoint: str | Path = "builtin",
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    config: ModelConfig | None = None,
) -> D4RT:
    """Load a network, ready to encode.

    checkpoint: "builtin", a .safetensors file, a folder of .safetensors parts, or an OpenD4RT .ckpt. config:
    only where neither the file nor a model.yaml beside it tells the sizes. Raises CheckpointError with the
    path and the first tensors that do not fit.
    """
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    path = BUILTIN if str(checkpoint) == "builtin" else Path(checkpoint).expanduser()
    state, found = read_state(path)
    config = config or found or _guess_config(path, state)
    with torch.device("meta"):  # shapes only: the weights come from the file
        model = D4RT(config)
    check_state(state, model, path)
    model.load_state_dict({name: state[name].to(torch.float32) for name in model.state_dict()}, assign=True)
    model.encoder.fill_buffers(config)
    model.query_embedder.fill_buffers(config)
    return model.to(device).set_precision(precision).eval().requires_grad_(False)


def save_weights(
    model: D4RT,
    path: str | Path,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write safetensors with the configuration inside, `path` being a file or, without a suffix, a folder.

    A folder gets parts of at most 15 MiB. All of it is written before anything there is replaced. Raises
    OSError, among them FileExistsError for a folder that holds other weights, and ValueError for a suffix
    that is not .safetensors.
    """
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    notes = {**(metadata or {}), "config": model.config.to_json(), "format": "pt"}
    path = Path(path)
    if path.suffix and not path.is_dir():
        if path.suffix != ".safetensors":
            raise ValueError(f"{path}: weights go to a .safetensors file, or to a folder, without a suffix")
        _put({path: tensors}, notes)
        return
    path.mkdir(parents=True, exist_ok=True)
    old = set(path.glob("*.safetensors"))
    if other := [file.name for file in sorted(old) if not _PART.fullmatch(file.name)]:
        raise FileExistsError(f"{path} holds other weights already, {other[0]}; choose another folder")
    parts: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if sum(t.nbytes for t in parts[-1].values()) + tensor.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = tensor
    new = {
        path / f"model-{index:05d}-of-{len(parts):05d}.safetensors": part
        for index, part in enumerate(parts, start=1)
    }
    _put(new, notes)
    for stale in old - set(new):
        stale.unlink()


def _put(files: Mapping[Path, dict[str, Tensor]], notes: dict[str, str]) -> None:
    """Write tensors beside where they belong, then put them there: they may come from the very files."""
    written = {path: path.with_name(f".{path.name}.part") for path in files}
    try:
        for path, tensors in files.items():
            save_file(tensors, written[path], notes)
        for path, part in written.items():
            os.replace(part, path)
    except SafetensorError as error:  # a missing folder, a full disk
        raise OSError(f"{path}: cannot be written ({error})") from error
    finally:
        for part in written.values():
            part.unlink(missing_ok=True)


def read_state(path: Path) -> tuple[dict[str, Tensor], ModelConfig | None]:
    """Read the tensors of a network by name, and its configuration if the file carries one.

    Raises CheckpointError naming the file.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise CheckpointError(f"{path}: no weights here (a .safetensors or .ckpt file, or a folder of parts)")
    try:
        if path.is_dir() or path.suffix == ".safetensors":
            return _read_safetensors(files)
        return _unwrap(_read_pickle(path)), None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # any: text is taken for a pickle, whose letters may do anything but harm
        raise CheckpointError(f"{path}: damaged or not a weights file ({why_unread(error)})") from error


def why_unread(error: Exception) -> str:
    """What is wrong with a file, in short; without torch's advice to read it by executing what is inside."""
    told = str(error).strip()
    if unknown := re.search(r"GLOBAL (\S+)", told):
        return f"holds {unknown[1]}, which is neither a tensor nor a plain value"
    if "weights_only" in told or not isinstance(error, (SafetensorError, OSError, RuntimeError, ValueError)):
        return "unexpected contents"
    return told.splitlines()[0] if told else repr(error)


def check_state(state: Mapping[str, Tensor], model: D4RT, path: Path) -> None:
    """Compare names and shapes, and look for NaN. Raises CheckpointError naming the first three misfits."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {shape}" if name in state else f"{name} is missing"
        for name, shape in wanted.items()
        if name not in state or tuple(state[name].shape) != shape
    ]
    wrong += [
        f"{name} is {tensor.dtype}" for name, tensor in state.items() if not tensor.dtype.is_floating_point
    ]
    wrong += [f"{name} is unknown" for name in state if name not in wanted]
    wrong = wrong or [f"{name} is not finite" for name, tensor in state.items() if not _is_finite(tensor)]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} tensors do not fit; first: {'; '.join(wrong[:3])}")


def _is_finite(tensor: Tensor) -> bool:
    """True if all is finite. NaN is both the least and the greatest (isfinite takes 20 times as long)."""
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        tensor = tensor.to(torch.float32)  # as which it is used; nothing is known of the ends of 8 bits
    return tensor.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(tensor))


def _read_safetensors(files: Iterable[Path]) -> tuple[dict[str, Tensor], ModelConfig | None]:
    state: dict[str, Tensor] = {}
    config = None
    for file in files:
        with safe_open(str(file), "pt") as opened:
            state.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
            text = (opened.metadata() or {}).get("config")
            config = ModelConfig.from_json(text) if text else config
    return _unwrap(state), config


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # the old, unzipped format


def _unwrap(values: Any) -> dict[str, Tensor]:
    """Find the state in whatever it is wrapped in and strip the prefixes of wrappers."""
    if not isinstance(values, Mapping):
        raise CheckpointError(f"holds a {type(values).__name__}, not a state dict")
    if not any(str(name).endswith(_MARK) for name in values):
        for key in _WRAPPERS:
            if isinstance(values.get(key), Mapping):
                return _unwrap(values[key])
        raise CheckpointError(
            f"holds no D4RT weights; first entries: {', '.join(map(str, list(values)[:3]))}"
        )
    prefix = next(str(name) for name in values if str(name).endswith(_MARK))[: -len(_MARK)]
    rest = prefix
    while rest:
        known = next((p for p in _PREFIXES if rest.startswith(p)), None)
        if known is None:
            raise CheckpointError(f"names begin with {prefix!r}, which no known wrapper adds")
        rest = rest[len(known) :]
    state = {str(name): value for name, value in values.items() if str(name).startswith(prefix)}
    if bad := next((name for name, value in state.items() if not isinstance(value, Tensor)), None):
        raise CheckpointError(f"{bad} is not a tensor")
    return {name[len(prefix) :]: value for name, value in state.items()}


def _guess_config(path: Path, state: Mapping[str, Tensor]) -> ModelConfig:
    """Take the sizes from a model.yaml or config.json beside the file, else from the number of frames."""
    folder = path if path.is_dir() else path.parent
    for name in ("model.yaml", "config.yaml", "config.json"):
        if (folder / name).is_file():
            try:
                return read_config(folder / name)
            except ValueError as error:
                raise CheckpointError(f"{path}: {error}") from error
    times = state.get("query_embedder.t_src_embed.weight")
    frames = 0 if times is None else len(times)
    if frames in (32, 48):
        return named_config(f"opend4rt-{frames}")
    raise CheckpointError(f"{path}: no configuration inside or beside it (model.yaml or config.json)")
