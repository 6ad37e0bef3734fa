"""An encoded window that answers queries; immutable, so threads share it without a lock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d4rt_ros.model.agreement import unsupported
from d4rt_ros.model.embedding import from_network, to_unit
from d4rt_ros.model.flow import fine_paths, read, with_depth
from d4rt_ros.model.graphs import COUNTS
from d4rt_ros.model.layers import KeysValues
from d4rt_ros.model.parallel import over_cores
from d4rt_ros.model.pixels import pixel_grid
from d4rt_ros.model.queries import Answers, Queries
from d4rt_ros.model.structure import CELLS, Structure, find_structure, lens_focal
from d4rt_ros.model.video import check_aspect, check_colours, check_frames, check_stamps, resize, upload

if TYPE_CHECKING:
    from d4rt_ros.model.network import D4RT

# On a CPU a chunk's activations should stay in the cache; on a GPU it should fill the device.
CHUNK_CPU = 1024
CHUNK_CUDA = COUNTS[-1]
_LENS_GRID = 6  # points of a frame, each way, from which the lens is read


@dataclass(frozen=True, eq=False)
class Scene:
    """The frames of a window and the decoder's keys and values of them.

    frames: [T, 3, H, W] uint8 as given, or [B, T, 3, H, W] for a batch of windows. images: what
    patches are cut from, [B, T, h, w, C] (see `QueryEmbedding.patches`). memory: keys and values
    [B, heads, tokens, d] of every decoder block. paths: where optical flow leads, if the
    network wants it. aspect_ratio: width / height of the original image, [B]. focal: of the lens, in image
    widths, [B]: what the encoder tells, if the network has that part, or what is known (see `with_focal`), in
    which case focal_known is True. Index a batch (`scene[b]`) to get the scene of one window.
    """

    model: D4RT
    frames: Tensor
    stamps: tuple[int, ...]
    images: Tensor
    memory: KeysValues
    paths: Tensor | None
    aspect_ratio: Tensor
    focal: Tensor | None = None
    focal_known: bool = False

    @staticmethod
    @torch.inference_mode()
    def encode(
        model: D4RT, video: Tensor, stamps: Sequence[int] | None, aspect_ratio: Tensor | float | None
    ) -> Scene:
        """See `D4RT.encode`."""
        config = model.config
        if video.ndim not in (4, 5) or video.shape[-3] != 3:
            raise ValueError(f"video must be [T, 3, H, W] or [B, T, 3, H, W], not {list(video.shape)}")
        batch = video if video.ndim == 5 else video[None]
        frames = check_frames(batch.shape[1], config.frames, config.patch[0])
        stamps = check_stamps(stamps, frames)
        if batch.shape[0] == 0 or 0 in batch.shape[-2:]:
            raise ValueError(f"video is empty: {list(video.shape)}")
        check_colours(batch)
        original = upload(batch, model.device)
        small = resize(to_unit(original), config.image_size)
        if aspect_ratio is None:
            aspect_ratio = batch.shape[-1] / batch.shape[-2]
        aspect = torch.as_tensor(aspect_ratio, dtype=torch.float32, device=model.device)
        check_aspect(aspect, len(batch))
        aspect = aspect.expand(batch.shape[0])
        encoded = model.encoded(small, aspect)
        memory = model.decoder.keys_values(encoded.memory)
        larger = batch.shape[-2] > config.image_size[0] and batch.shape[-1] > config.image_size[1]
        images = encoded.pixels
        if images is None:
            images = (original if config.original_patches and larger else small).movedim(-3, -1)
        images = images.contiguous()  # a pixel's colours together: patches are cut by pixel
        kept = video if video.dtype == torch.uint8 else (video * 255).round().to(torch.uint8)
        focal = None if encoded.log_focal is None else encoded.log_focal.exp()
        return Scene(model, kept, stamps, images, memory, encoded.paths, aspect, focal)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.stamps)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the frames as given."""
        return self.frames.shape[-2], self.frames.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where queries are answered and answers lie."""
        return self.images.device

    @property
    def batched(self) -> bool:
        """Whether this holds a batch of windows."""
        return self.frames.ndim == 5

    def __getitem__(self, index: int) -> Scene:
        """Return the scene of one window of a batch; shares memory. Raises IndexError."""
        if not self.batched:
            raise IndexError("this scene holds one window")
        part = slice(index, index + 1 or None)
        memory = [(keys[part], values[part]) for keys, values in self.memory]
        return replace(
            self,
            frames=self.frames[index],
            images=self.images[part],
            memory=memory,
            paths=None if self.paths is None else self.paths[part],
            aspect_ratio=self.aspect_ratio[part],
            focal=None if self.focal is None else self.focal[part],
        )

    def __iter__(self) -> Iterator[Scene]:
        """The scenes of a batch. Raises TypeError for a scene of one window."""
        return (self[index] for index in range(len(self)))

    def __bool__(self) -> bool:
        """True: one window has no length."""
        return True

    def __len__(self) -> int:
        """Windows in a batch. Raises TypeError for a scene of one window."""
        if not self.batched:
            raise TypeError("this scene holds one window")
        return len(self.frames)

    def decode(self, queries: Queries) -> Answers:
        """Answer queries [N], or [B, N] for a batch, float32 on the scene's device.

        Any number of them; they are split to fit, and the split does not show in the answers. Raises
        ValueError for another shape, a time index outside 0..T-1 or a u, v that is not finite.

        Where the frames were compared, confidence is what `Agreement` says of the source pixel: on real
        footage the network's own tells nothing.
        """
        queries = self._checked(queries)
        raw = self._raw(queries)
        if not torch.is_inference_mode_enabled():  # or who asked could not write to answers
            raw |= {name: raw[name].clone() for name in ("xyz", "uv", "displacement")}
        config = self.model.config
        return Answers(
            xyz=raw["xyz"],
            uv=from_network(raw["uv"], config.image_size, config.corner_pixels),
            visibility=raw["visibility"].sigmoid(),
            displacement=raw["displacement"],
            normal=F.normalize(raw["normal"], dim=-1),
            confidence=self._confidence(raw["confidence"], queries).clamp(1e-4, 1 - 1e-4),
        )

    def _confidence(self, logits: Tensor, queries: Queries) -> Tensor:
        """0..1 of the network's logits, or what frames that were compared say."""
        if self._agreed is None:
            return logits.sigmoid()
        if self.batched:
            return read(self._agreed, queries)[..., 0]
        return read(self._agreed, queries.apply(lambda x: x[None]))[0, :, 0]

    def decode_raw(self, queries: Queries) -> dict[str, Tensor]:
        """Like `decode`, but visibility and confidence are logits, uv in the network's own counting."""
        return self._raw(self._checked(queries))

    @torch.inference_mode()
    def _raw(self, queries: Queries) -> dict[str, Tensor]:
        """Raw answers to what is `_checked`."""
        if not self.batched:
            queries = queries.apply(lambda x: x[None])
        spread = over_cores if self.device.type == "cpu" else map
        images, paths = self.settled
        parts = list(
            spread(
                lambda part: self.model.answer_quickly(part, images, self.memory, paths),
                self._chunks(queries),
            )
        )
        joined = parts[0]
        if len(parts) > 1:
            joined = {name: torch.cat([part[name] for part in parts], dim=1) for name in joined}
        if self.focal is not None:
            across = F.pad(self._across[:, None, None].expand(-1, -1, 2), (0, 1), value=1.0)
            joined |= {name: joined[name] * across for name in ("xyz", "displacement")}
        return joined if self.batched else {name: value[0] for name, value in joined.items()}

    def with_focal(self, focal: float) -> Scene:
        """The scene of a camera with a lens of known focal length, in image widths. Ask it before others.

        Raises ValueError for a length that no lens has.
        """
        if not (math.isfinite(focal) and focal > 0):
            raise ValueError(f"focal is {focal} image widths, it must be above 0")
        return replace(
            self, focal=self.aspect_ratio.new_full(self.aspect_ratio.shape, focal), focal_known=True
        )

    @cached_property
    def solved_poses(self) -> np.ndarray | None:
        """Where cameras are in camera 0, [T, 4, 4] float64, in the scale of answers, by `find_structure`.

        None for a batch, for a network without a pyramid, and where the window does not say.
        """
        if self._structure is None or self._structure.poses is None:
            return None
        start = F.adaptive_avg_pool2d(self.settled[0][:, self._some_frames, ..., 3], _LENS_GRID)[0]
        poses = self._structure.poses.copy()
        poses[:, :3, 3] *= float((self._seen[..., 2].log() - start).median().exp())
        return poses

    @property
    def unposed(self) -> str:
        """Why `find_structure` tells no poses, as a sentence; empty where it does, or was not asked."""
        if self._structure is None or self._structure.poses is not None:
            return ""
        return "too little of the window can be followed, or it does not move as a world that stands still"

    @cached_property
    def _fine_paths(self) -> Tensor | None:
        """Paths of `fine_paths` of one window, where the network wants any and guesses depth."""
        if self.batched or self.paths is None or self.images.shape[-1] == 3:
            return None
        return fine_paths(self.frames, CELLS).to(self.device)

    @cached_property
    def _structure(self) -> Structure | None:
        """Found when it is first asked for: what is not asked costs nothing."""
        if self._fine_paths is None or self.focal is None:
            return None
        aspect, focal = float(self.aspect_ratio), float(self.focal)
        guess = self.images[0, ..., 3]
        found = find_structure(self.frames, self._fine_paths[0], guess, aspect, focal, self.focal_known)
        return found.refined(self.model.refine(self.images, found.hints[None].to(self.device))[0])

    @cached_property
    def _agreed(self) -> Tensor | None:
        """`Agreement.confidence` of windows, [B, T, CELLS, CELLS, 1], where the network compares frames."""
        if self.batched:
            parts = [row._agreed for row in self._rows]
            told = [part for part in parts if part is not None]
            return torch.cat(told) if told else None
        if self._structure is None:
            return None
        log_depth, agreement = self._structure.log_depth, self._structure.agreement
        share = unsupported(log_depth, CELLS) if agreement is None else agreement.confidence(log_depth)
        return share[None, ..., None].to(self.device)

    @cached_property
    def _rows(self) -> list[Scene]:
        """The windows of a batch, each of which finds its structure once."""
        return [self[index] for index in range(len(self))]

    @property
    def _some_frames(self) -> list[int]:
        return [0, (self.num_frames - 1) // 2, self.num_frames - 1]

    @cached_property
    def _seen(self) -> Tensor:
        """What the network sees at a grid of pixels of some frames, in their own cameras: [F, n, n, 3]."""
        u, v = pixel_grid(_LENS_GRID, _LENS_GRID, self.device)
        time = torch.tensor(self._some_frames, device=self.device)[:, None]
        asked = Queries.make(u, v, time, time, time).apply(lambda x: x.reshape(1, -1))
        with torch.inference_mode():
            images, paths = self.settled
            xyz = self.model.answer_quickly(asked, images, self.memory, paths)["xyz"]
        return xyz.reshape(-1, _LENS_GRID, _LENS_GRID, 3)

    @cached_property
    def lens(self) -> Tensor | None:
        """The focal length that answers keep to, in image widths, [B]: `focal`, and what is seen says of it.

        None for a network that keeps to none.
        """
        if self.focal is None or self.focal_known:
            return self.focal
        if self.batched:
            return torch.stack([row.lens for row in self._rows]).flatten()  # type: ignore[misc]
        return self.focal if self._structure is None else torch.full_like(self.focal, self._structure.focal)

    @cached_property
    def _across(self) -> Tensor:
        """By how much answers lie further from the axis than the network says, [B], for rays of the lens."""
        if self.batched:
            return torch.cat([row._across for row in self._rows])
        assert self.lens is not None
        own = lens_focal(self._seen.double().cpu().numpy(), float(self.aspect_ratio))
        return torch.ones_like(self.lens) if own is None else own / self.lens

    @cached_property
    def settled(self) -> tuple[Tensor, Tensor | None]:
        """Images and paths that answers start from: the encoder's, made to agree with the camera's motion."""
        if self.batched and self.paths is not None and self.images.shape[-1] != 3:
            parts = [row.settled for row in self._rows]
            paths = [path for _, path in parts if path is not None]
            return torch.cat([image for image, _ in parts]), torch.cat(paths)
        if self._structure is None or self._fine_paths is None:
            return self.images, self.paths
        log_depth = self._structure.log_depth.to(self.device)[None]
        images = torch.cat((self.images[..., :3], log_depth[..., None]), dim=-1)
        return images, with_depth(self._fine_paths, log_depth)

    def _chunks(self, queries: Queries) -> Iterator[Queries]:
        """Split along N so that the activations of one part fit."""
        size = CHUNK_CUDA if self.device.type == "cuda" else CHUNK_CPU
        size = max(1, size // queries.shape[0])
        if queries.shape[1] <= size:
            yield queries
            return
        for start in range(0, queries.shape[1], size):
            yield queries.apply(lambda x, start=start: x[:, start : start + size])  # type: ignore[misc]

    def _checked(self, queries: Queries) -> Queries:
        """The queries on this device, as `Queries.checked` returns them."""
        wanted = 2 if self.batched else 1
        if len(queries.shape) != wanted or (self.batched and queries.shape[0] != len(self.frames)):
            shape = f"[{len(self.frames)}, N]" if self.batched else "[N]"
            raise ValueError(f"queries must be {shape}, not {list(queries.shape)}")
        return queries.to(self.device).checked(self.num_frames)
