"""How far optical flow may be off: the light that it does not explain, over what the texture holds it by.

A patch's flow has the covariance r^2 S^-1, of what is left of the light once the patch has moved (r), and of
the sum of its gradients' products (S; Förstner and Gülch, 1987). Where a floor or wall has no texture, flow
is what its surroundings make of it, and looks as sure as elsewhere.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from d4rt_ros.model.flow import fine_grey
from d4rt_ros.model.parallel import over_cores

_PATCH = 9  # pixels each way that hold a flow together
_LIGHT = 25  # pixels each way over which light may have changed
_BLUR = 1.0  # pixels; gradients of noise hold nothing
_CODED = 1.0  # steps of 0..255 that are left in any image
_TIMES = 1.4  # deviations are so much larger: pixels of a patch err alike


def doubts(frames: Tensor, paths: Tensor) -> Tensor:
    """Deviation of where paths lead, per axis, in image widths.

    In the direction in which a patch is held least, which at an edge is along it. Infinite where the path
    leaves more of the light than there was to explain: in noise, of what is hidden, of flow gone astray.

    Args:
        frames: [T, 3, H, W] uint8.
        paths: [T, cells, cells, T, 3] of `fine_paths` of these frames.

    Returns:
        [T, cells, cells, T] float32 on the CPU.
    """
    images = [image.astype(np.float32) for image in fine_grey(frames)]
    ways = paths[..., :2].cpu().numpy()
    found = over_cores(lambda i: _of_frame(i, images, ways[i]), range(len(images)))
    return torch.from_numpy(np.stack(list(found)))


def _of_frame(own: int, images: list[np.ndarray], ways: np.ndarray) -> np.ndarray:
    """Deviations [cells, cells, T] of the ways [cells, cells, T, 2] that frame `own` goes."""
    image, cells = images[own], ways.shape[:2]
    size = np.array(image.shape[::-1], np.float32)
    centres = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size)), -1)
    left = np.zeros((*cells, len(images)), np.float32)
    for other in range(len(images)):
        if other == own:
            continue
        ends = cv2.resize(ways[:, :, other] * size, image.shape[::-1])
        ends += centres
        x, y = cv2.split(ends)
        moved = cv2.remap(images[other], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left[:, :, other] = _spread(moved - image, cells)
    left = np.maximum(left, _CODED)
    doubt = _TIMES * left / np.sqrt(_held(image, cells))[..., None] / size[0]
    doubt[left > _spread(image, cells)[..., None]] = np.inf
    return doubt


def _spread(image: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Root mean square [cells, cells] of patches, changes over a wider neighbourhood left out."""
    image = image - cv2.blur(image, (_LIGHT, _LIGHT))
    squares = cv2.sqrBoxFilter(image, -1, (_PATCH, _PATCH))  # of running sums, which may end below nothing
    return np.asarray(np.sqrt(np.maximum(_cells(squares, cells), 0)))


def _held(image: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """The smaller eigenvalue of the sum of the gradients' products over a patch, [cells, cells]."""
    smooth = cv2.GaussianBlur(image, (0, 0), _BLUR)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    xx, xy, yy = (cv2.boxFilter(p, -1, (_PATCH, _PATCH), normalize=False) for p in (x * x, x * y, y * y))
    least = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    return np.maximum(_cells(np.maximum(least, 0), cells), 1.0)


def _cells(image: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(image, cells[::-1], interpolation=cv2.INTER_AREA))
