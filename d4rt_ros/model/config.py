"""Hyper-parameters of the network and the sizes that have a name (paper appendix A and section 4)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from d4rt_ros.model.checks import ABOVE_0, Range, at_least, check_fields

_CELL = 8  # pixels of the input a cell of the pyramid's coarsest level, each way


@dataclass(frozen=True)
class ModelConfig:
    """Every number that shapes the network. The defaults are the built-in size.

    frames: the longest window, T (the number of time embeddings). image_size: (height, width) that the
    encoder sees. patch: tubelet (frames, height, width). *_width, *_heads, *_depth, *_mlp_ratio: of the
    encoder (vit) and of the decoder (dec). uv_bands: octaves of the Fourier features of u, v. rgb_patch: side
    of the colour patch round a query, pixels. position: "grid" adds sines of t, row and column, "flat" adds
    sines of the token's number. corner_pixels: the network counts u, v from pixel centre to pixel centre of
    its input (OpenD4RT) and not over the full extent. original_patches: colour patches are cut from the
    original frame when it is larger than image_size (paper appendix C). relative: the read-outs of xyz and uv
    start from the query's own pixel (see `network.from_pixel`), which a small network learns much sooner.
    anchored: memory tokens carry the query's own embeddings of their place and time, so that a query finds
    where it looks from the first step on. flow: tokens and queries know where optical flow leads, and the
    read-outs of uv and xyz start from there (`flow.py`); needs `relative`. pyramid: channels of convolutions
    at half of the size (twice and four times as many below), from whose guess depth starts (`pyramid.py`); 0
    for none; needs `relative` and patches of 8 x 8. refiner: channels of those that look at depth once more
    when the window's motion has told of it (`refiner.py`); 0 for none; needs `flow` and a pyramid.
    """

    frames: int = 8
    image_size: tuple[int, int] = (64, 64)
    patch: tuple[int, int, int] = (2, 8, 8)
    vit_width: int = 256
    vit_heads: int = 4
    vit_depth: int = 8
    vit_mlp_ratio: float = 3.0
    dec_width: int = 256
    dec_heads: int = 4
    dec_depth: int = 4
    dec_mlp_ratio: float = 3.5
    uv_bands: int = 8
    rgb_patch: int = 9
    position: str = "grid"
    corner_pixels: bool = False
    original_patches: bool = False
    relative: bool = True
    anchored: bool = True
    flow: bool = True
    pyramid: int = 64
    refiner: int = 32

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together. Raises ValueError naming field and value."""
        parts = [f"{part}_{size}" for part in ("vit", "dec") for size in ("width", "heads", "depth")]
        check_fields(
            self,
            "",
            **dict.fromkeys(parts, at_least(1)),
            vit_mlp_ratio=ABOVE_0,
            dec_mlp_ratio=ABOVE_0,
            uv_bands=Range(0, 64, "in 0..64"),
        )
        for name, count in (("image_size", 2), ("patch", 3)):
            sizes = getattr(self, name)
            if not isinstance(sizes, (list, tuple)) or [type(n) for n in sizes] != [int] * count:
                raise ValueError(f"{name} is {sizes!r}, must be {count} whole numbers")
            object.__setattr__(self, name, tuple(sizes))
        for axis, (size, step) in enumerate(zip((self.frames, *self.image_size), self.patch)):
            if step < 1 or size < step or size % step:
                name = ("frames", "image_size height", "image_size width")[axis]
                raise ValueError(f"{name} {size} is not a multiple of the patch's {step}")
        if self.corner_pixels and self.relative:
            raise ValueError("relative read-outs start from pixels over the full extent, not corner_pixels")
        if self.flow and not self.relative:
            raise ValueError("flow needs relative read-outs")
        if self.pyramid and (
            not self.relative or self.original_patches or self.patch[1:] != (_CELL, _CELL) or self.pyramid < 0
        ):
            raise ValueError(
                f"a pyramid of {self.pyramid} channels needs relative read-outs, patches of "
                f"{_CELL} x {_CELL} and colours from the network's input"
            )
        if self.refiner < 0 or (self.refiner and not (self.flow and self.pyramid)):
            raise ValueError(f"a refiner of {self.refiner} channels needs flow and a pyramid")
        for width, heads, name in (
            (self.vit_width, self.vit_heads, "vit"),
            (self.dec_width, self.dec_heads, "dec"),
        ):
            if width % heads:
                raise ValueError(f"{name}_width {width} is not a multiple of {name}_heads {heads}")
            if width % 2:
                raise ValueError(f"{name}_width {width} is odd")
        if not self.vit_hidden:
            raise ValueError(f"vit_mlp_ratio {self.vit_mlp_ratio} leaves none of {self.vit_width} channels")
        if self.position not in ("grid", "flat"):
            raise ValueError(f"position {self.position!r} is neither 'grid' nor 'flat'")
        if self.rgb_patch < 1 or self.rgb_patch % 2 == 0:
            raise ValueError(f"rgb_patch {self.rgb_patch} is not a positive odd number")

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Tokens along time, height and width for a full window."""
        t, h, w = self.patch
        return self.frames // t, self.image_size[0] // h, self.image_size[1] // w

    @property
    def memory_tokens(self) -> int:
        """Tokens that a query looks at in a full window, the aspect-ratio token included."""
        return math.prod(self.token_grid) + 1

    @property
    def vit_hidden(self) -> int:
        """Width of the encoder's MLP."""
        return round(self.vit_width * self.vit_mlp_ratio)

    @property
    def dec_hidden(self) -> int:
        """Width of the decoder's MLP."""
        return math.ceil(self.dec_width * self.dec_mlp_ratio)

    def to_json(self) -> str:
        """Serialise, for the metadata of a weights file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> ModelConfig:
        """Inverse of `to_json`. Raises ValueError if a field is unknown or does not fit."""
        try:
            return ModelConfig(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a model configuration: {error}") from error


_LARGE_DECODER = {"dec_width": 1280, "dec_heads": 16, "dec_depth": 8}
_PAPER: dict[str, Any] = {
    "frames": 48,
    "image_size": (256, 256),
    "patch": (2, 16, 16),
    "original_patches": True,
    "relative": False,
    "anchored": False,
    "flow": False,
    "pyramid": 0,
    "refiner": 0,
    "dec_width": 768,
    "dec_heads": 12,
    "dec_depth": 6,
}
_USUAL = {"vit_mlp_ratio": 4.0}  # of all published ViTs but the giant
_VIT: dict[str, dict[str, Any]] = {
    "base": {"vit_width": 768, "vit_heads": 12, "vit_depth": 12, **_USUAL},
    "large": {"vit_width": 1024, "vit_heads": 16, "vit_depth": 24, **_USUAL},
    "huge": {"vit_width": 1280, "vit_heads": 16, "vit_depth": 32, **_USUAL},
    "giant": {"vit_width": 1408, "vit_heads": 16, "vit_depth": 40, "vit_mlp_ratio": 48 / 11},
}
_OPEND4RT: dict[str, Any] = {
    **_PAPER,
    **_VIT["giant"],
    **_LARGE_DECODER,
    "position": "flat",
    "corner_pixels": True,
}
_NAMED: dict[str, dict[str, Any]] = {
    "builtin": {},
    "base": {**_PAPER, **_VIT["base"]},
    "large": {**_PAPER, **_VIT["large"]},
    "huge": {**_PAPER, **_VIT["huge"], **_LARGE_DECODER},
    "giant": {**_PAPER, **_VIT["giant"], **_LARGE_DECODER},
    "opend4rt-32": {**_OPEND4RT, "frames": 32},
    "opend4rt-48": _OPEND4RT,
}
NAMES = tuple(_NAMED)


def named_config(name: str) -> ModelConfig:
    """Return the configuration of a named size. Raises ValueError for an unknown name."""
    if not isinstance(name, str) or name not in _NAMED:
        raise ValueError(f"unknown model size {name!r}; known are {', '.join(NAMES)}")
    return ModelConfig(**_NAMED[name])


def opend4rt_config(values: dict[str, Any]) -> ModelConfig:
    """Read the model configuration that OpenD4RT keeps beside a checkpoint (its model.yaml, or as JSON).

    Raises ValueError when a part is missing or asks for something that this network has not.
    """
    try:
        clip, encoder, decoder = values["input"], values["encoder"], values["decoder"]
        query = values.get("query_embedding", {})
        patch_rgb = query.get("local_rgb_patch", {})
        if not clip.get("use_aspect_ratio_token", True) or not patch_rgb.get("enabled", True):
            raise ValueError("a network without aspect-ratio token or colour patch is not supported")
        if decoder.get("query_self_attention", False):
            raise ValueError("attention between queries is not part of D4RT (paper section 2)")
        variant = str(encoder.get("variant", "custom")).lower().replace("vit_", "").replace("vit-", "")
        sizes = {"b": "base", "l": "large", "h": "huge", "g": "giant"}
        if not variant:
            raise ValueError(f"encoder.variant is {encoder['variant']!r}, must be custom or as vit_g")
        vit = dict(_VIT[sizes[variant[0]]]) if variant != "custom" and variant[0] in sizes else {**_USUAL}
        for ours, theirs in (
            ("vit_width", "hidden_dim"),
            ("vit_heads", "num_heads"),
            ("vit_depth", "num_layers"),
            ("vit_mlp_ratio", "mlp_ratio"),
        ):
            if theirs in encoder:
                vit[ours] = encoder[theirs]
        config = ModelConfig(
            frames=clip["clip_frames"],
            image_size=clip["image_size"],
            patch=encoder["patch_size_t_h_w"],
            **vit,
            dec_width=decoder["hidden_dim"],
            dec_heads=decoder["num_heads"],
            dec_depth=decoder["num_layers"],
            dec_mlp_ratio=decoder.get("mlp_ratio", 3.5),
            uv_bands=query.get("uv_num_bands", 8),
            rgb_patch=patch_rgb.get("patch_size", 9),
            position="flat",
            corner_pixels=True,
            original_patches=True,
            relative=False,
            anchored=False,
            flow=False,
            pyramid=0,
            refiner=0,
        )
        limit = encoder.get("max_tokens", 6144)
        if config.memory_tokens - 1 > limit:
            raise ValueError(
                f"{config.memory_tokens - 1} tokens are more than the checkpoint's max_tokens {limit}"
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an OpenD4RT model configuration: {error!r}") from error
    return config


def read_config(path: str | Path) -> ModelConfig:
    """Read our JSON or OpenD4RT's JSON or YAML. Raises ValueError naming the file."""
    import yaml

    from d4rt_ros.model.yaml_text import load_yaml

    try:
        values = load_yaml(Path(path).read_text())
        if not isinstance(values, dict):
            raise ValueError("not a mapping")
        values = values.get("model", values) if "encoder" not in values else values
        return opend4rt_config(values) if "encoder" in values else ModelConfig(**values)
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def with_frames(config: ModelConfig, frames: int) -> ModelConfig:
    """Return the same configuration for windows of another length."""
    return replace(config, frames=frames)
