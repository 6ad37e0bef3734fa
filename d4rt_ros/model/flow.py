"""Where every part of a frame goes, by optical flow: what a small network's answers start from.

Flow between neighbouring frames is OpenCV's DIS (Kroeger et al., ECCV 2016), chained over the window. This is
not part of the paper: it spares a network of a laptop's size the learning of matching.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d4rt_ros.model.parallel import over_cores
from d4rt_ros.model.queries import Queries

CELL = 4  # pixels of the input a cell of the paths, each way
_SHARE = 0.625  # of the input's resolution is enough for flow, at a third of the time
_FINE = 128  # pixels a side at most where flow is to be exact
_LEAST = 16  # pixels a side that DIS wants
_FAST = 0.035  # image sizes; a search from nothing finds what goes less far
_CLEAR = 0.25  # response of phase correlation, of 1, at which a shift is believed
_UNDO = 3  # fixed-point steps that turn a flow round
_local = threading.local()


def flow_paths(video: Tensor) -> Tensor:
    """Follow every cell of every frame to all frames of its window.

    Args:
        video: [B, T, 3, H, W] float in 0..1.

    Returns:
        [B, T, h, w, T, 3] float32 where the video lies, h = H / 4, w = W / 4: for a cell of frame i and a
        frame j the way (du, dv) that it goes from i to j, in image widths and heights, and how far from its
        start it ends when it goes back from there.
    """
    height, width = video.shape[-2:]
    grey = (video[:, :, 0] + video[:, :, 1] + video[:, :, 2]).mul_(85).to("cpu", torch.uint8).numpy()
    size = max(_LEAST, round(_SHARE * height)), max(_LEAST, round(_SHARE * width))
    flows = [_flows([_resized(image, size) for image in images]) for images in grey]
    return _paths(flows, (-(-height // CELL), -(-width // CELL))).to(video.device)


def fine_paths(frames: Tensor, cells: int) -> Tensor:
    """Like `flow_paths`, but of frames [T, 3, H, W] uint8 at up to 128 pixels a side and of `cells` each way.

    Every frame is also compared with those further on, beginning where the steps between lead, so that errors
    do not add up. Takes fifteen times as long. Returns [1, T, cells, cells, T, 3] on the CPU.
    """
    grey = fine_grey(frames)
    steps = _flows(grey, _starts(grey))
    paths = _paths([steps], (cells, cells))
    ways = paths[0, ..., :2].permute(0, 3, 4, 1, 2)  # a view: [i, j, 2, cells, cells]
    for i, flows in enumerate(over_cores(lambda i: _ahead(grey[i:], steps[i:]), range(len(steps)))):
        for j, flow in enumerate(flows, i + 2):
            ways[i, j] = torch.from_numpy(_resized(flow, (cells, cells)).transpose(2, 0, 1))
    earlier, later = torch.triu_indices(len(grey), len(grey), 2)
    ways[later, earlier] = _undone(ways[earlier, later])
    return paths


def fine_grey(frames: Tensor) -> list[np.ndarray]:
    """Frames [T, 3, H, W] uint8 as the grey images [h, w] uint8 that `fine_paths` compares."""
    images = frames.permute(0, 2, 3, 1).cpu().numpy()
    share = min(1.0, _FINE / max(images.shape[1:3]))
    height, width = (max(_LEAST, round(share * n)) for n in images.shape[1:3])
    return list(
        over_cores(lambda image: cv2.cvtColor(_resized(image, (height, width)), cv2.COLOR_RGB2GRAY), images)
    )


def _ahead(grey: Sequence[np.ndarray], steps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Flows from the first of some images to all but the next, given those from each to the next."""
    size = np.array(grey[0].shape[::-1], np.float32)
    search = _search()  # of its own: one that was given a flow to begin with crashes at another size
    centres = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grey[0].shape[::-1])), -1)
    way, found = steps[0] * size, []
    for image, step in zip(grey[2:], steps[1:]):
        x, y = np.moveaxis(centres + way, -1, 0)
        way += cv2.remap(step * size, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        way = np.asarray(search.calc(grey[0], image, way))
        found.append(way / size)
    return found


def _paths(flows: Sequence[Sequence[np.ndarray]], cells: tuple[int, int]) -> Tensor:
    """Flows between neighbours, B times T - 1 of [h, w, 2], to the result of `flow_paths` on the CPU."""
    maps = np.empty((len(flows), len(flows[0]), 2, *cells), np.float32)
    for clip, found in zip(maps, flows):
        for pair, flow in zip(clip, found):
            pair[:] = _resized(flow, cells).transpose(2, 0, 1)
    forth = torch.from_numpy(maps)
    return _chain(forth, _undone(forth.flatten(0, 1)).reshape(forth.shape))


def _undone(flows: Tensor) -> Tensor:
    """Flows [N, 2, h, w] turned round: from where they lead to where they began."""
    back = -flows
    for _ in range(_UNDO):
        back = -_look(flows, _centres(flows) + back)
    return back


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))


def _chain(forth: Tensor, back: Tensor) -> Tensor:
    """Flows [B, T - 1, 2, h, w] from every frame to the next, and back, to the result of `flow_paths`."""
    b, steps, _, h, w = forth.shape
    frames = steps + 1
    centres = _centres(forth)
    ends = centres.expand(b, frames, frames, 2, h, w).clone()  # [b, i, j]: where cells of i are in j
    time = torch.arange(frames)
    for distance in range(1, frames):  # one frame further ahead, and one further back
        i = torch.cat((time[:-distance], time[distance:]))
        j = torch.cat((time[distance:], time[:-distance]))
        flow = torch.cat((forth[:, distance - 1 :], back[:, : frames - distance]), dim=1)
        before = ends[:, i, j - (j - i).sign()].flatten(0, 1)
        ends[:, i, j] = (before + _look(flow.flatten(0, 1), before)).unflatten(0, (b, -1))
    way = ends - centres
    returned = way + _look(way.transpose(1, 2).flatten(0, 2), ends.flatten(0, 2)).unflatten(
        0, (b, frames, frames)
    )
    missed = torch.hypot(*returned.unbind(3))
    return torch.stack((*way.unbind(3), missed), dim=-1).permute(0, 1, 3, 4, 2, 5).contiguous()


def with_depth(paths: Tensor, log_depth: Tensor) -> Tensor:
    """Add to paths [B, T, h, w, T, 3] how much deeper than its cell they end in `log_depth` [B, T, H, W]."""
    b, frames, h, w = paths.shape[:4]
    ends = (paths[..., :2] + _centres(paths[0, 0, :, :, 0, 0]).permute(1, 2, 0)[..., None, :]).movedim(4, 1)
    found = F.grid_sample(
        log_depth.flatten(0, 1)[:, None],
        ends.reshape(b * frames, frames * h, w, 2) * 2 - 1,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    ).reshape(b, frames, frames, h, w)  # [b, j, i]: of cells of i, in j
    own = found.diagonal(dim1=1, dim2=2).movedim(-1, 1)
    return torch.cat((paths, (found - own[:, None]).permute(0, 2, 3, 4, 1)[..., None]), dim=-1)


def follow(paths: Tensor, queries: Queries) -> Tensor:
    """Paths of the points (u, v) of frames t_src, [B, N]: [B, N, T, C], as in `flow_paths`."""
    return read(paths.flatten(4), queries).unflatten(-1, (paths.shape[4], -1))


def read(maps: Tensor, queries: Queries) -> Tensor:
    """Maps [B, T, h, w, C] at the points (u, v) of frames t_src, [B, N]: [B, N, C]."""
    _, frames, h, w, _ = maps.shape
    x = (queries.u * w - 0.5).clamp(0, w - 1)
    y = (queries.v * h - 0.5).clamp(0, h - 1)
    x0, y0 = x.floor().clamp(max=max(w - 2, 0)), y.floor().clamp(max=max(h - 2, 0))
    step = torch.arange(2, device=maps.device)
    column = (x0.long()[..., None] + step).clamp(max=w - 1)
    row = (y0.long()[..., None] + step).clamp(max=h - 1)
    first = (torch.arange(len(maps), device=maps.device)[:, None] * frames + queries.t_src) * h
    index = (first[..., None] + row)[..., None] * w + column[..., None, :]  # [B, N, 2, 2]
    block = maps.flatten(0, 3).index_select(0, index.flatten()).unflatten(0, index.shape)
    block = torch.lerp(block[..., 0, :, :], block[..., 1, :, :], (y - y0)[..., None, None])
    return torch.lerp(block[..., 0, :], block[..., 1, :], (x - x0)[..., None])


def at(path: Tensor, time: Tensor) -> Tensor:
    """Paths [B, N, T, C] at times [B, N]: [B, N, 1, C]."""
    return path.gather(2, time[..., None, None].expand(-1, -1, 1, path.shape[-1]))


def scaled(paths: Tensor) -> Tensor:
    """Paths in the range of other inputs: a tenth of the image is 1, more than half of it is half of it."""
    return (10 * paths).clamp(-5, 5)


def _centres(maps: Tensor) -> Tensor:
    """(u, v) of the middles of cells, [2, h, w]."""
    h, w = maps.shape[-2:]
    axes = ((torch.arange(n, device=maps.device) + 0.5) / n for n in (h, w))
    v, u = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((u, v))


def _look(maps: Tensor, at: Tensor) -> Tensor:
    """Maps [N, C, h, w] at places (u, v) [N, 2, h, w], the border's value outside."""
    if not len(maps):
        return maps
    return F.grid_sample(
        maps, at.permute(0, 2, 3, 1) * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False
    )


def _flows(
    images: Sequence[np.ndarray], starts: Sequence[np.ndarray | None] | None = None
) -> list[np.ndarray]:
    """Flows between neighbours of grey images [h, w], each [h, w, 2] in image widths and heights."""
    size = np.array(images[0].shape[::-1], np.float32)

    def flow(pair: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> np.ndarray:
        image, other, start = pair
        search = _search() if start is not None else _kept_search()
        return np.asarray(search.calc(image, other, start)) / size  # type: ignore[arg-type]

    return list(over_cores(flow, zip(images, images[1:], starts or [None] * len(images))))


def _starts(images: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Flows, everywhere the same, from which to search between neighbours where a camera turns fast.

    None where a search from nothing does. Found by phase correlation; where that is not clear, the nearest
    neighbours that are clear tell.
    """
    size = images[0].shape[::-1]
    window = cv2.createHanningWindow(size, cv2.CV_32F)
    floats = [image.astype(np.float32) for image in images]
    found = [cv2.phaseCorrelate(a, b, window) for a, b in zip(floats, floats[1:])]
    clear = [index for index, (_, response) in enumerate(found) if response > _CLEAR]
    if not clear:
        return [None] * len(found)
    nearest = [min((abs(other - index), other) for other in clear)[1] for index in range(len(found))]
    ways = [np.array(found[index][0], np.float32) for index in nearest]
    fast = [np.abs(way / size).max() > _FAST for way in ways]
    return [np.tile(way, (*images[0].shape, 1)) if f else None for way, f in zip(ways, fast)]


def _kept_search() -> cv2.DISOpticalFlow:
    """A search that nothing is given to begin with; it keeps buffers, so there is one a thread."""
    if not hasattr(_local, "dis"):
        _local.dis = _search()
    return _local.dis


def _search() -> cv2.DISOpticalFlow:
    cv2.setNumThreads(1)  # OpenCV's threads and torch's wait for each other: twice the time together
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    dis.setFinestScale(0)
    dis.setPatchSize(8)
    dis.setPatchStride(3)
    dis.setGradientDescentIterations(8)
    dis.setVariationalRefinementIterations(5)
    return dis
