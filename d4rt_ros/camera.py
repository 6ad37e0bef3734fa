"""A calibrated camera: intrinsics, lens distortion, and the maps that take the distortion out.

Intrinsics here follow this package's convention (pixel centres at integer + 0.5, so the middle of an image
W pixels wide is W / 2). OpenCV and ROS count centres at integers; the half pixel is added and taken in this
file and in `conversions` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

# distortion model of sensor_msgs/CameraInfo -> numbers of coefficients that it may have
_MODELS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,), "fisheye": (4,)}
_HALF = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
_RANGE = 1000  # times the image's size: no focal length is longer
_LAST_ONE = np.diag([0.0, 0.0, 1.0])


SAME, NEAR = 1e-4, 1e-2  # that `apart` says of calibrations that no image tells apart, or no window


@dataclass(frozen=True, eq=False)
class Camera:
    """One calibration of one image size.

    Attributes:
        size: (H, W) of the images that it describes.
        matrix: [3, 3] float64, pixels, centres at integer + 0.5.
        model: ``plumb_bob``, ``rational_polynomial``, ``equidistant`` (or ``fisheye``); ignored without
            coefficients.
        coefficients: the model's numbers in the order of OpenCV, or empty for an ideal lens.

    Raises:
        ValueError: on values that no camera has; the text names them.
    """

    size: tuple[int, int]
    matrix: np.ndarray
    model: str = ""
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Checks the calibration."""
        height, width = self.size
        if height < 1 or width < 1:
            raise ValueError(f"camera_info describes an image of {width}x{height} pixels")
        if not np.all(np.isfinite(self.matrix)) or self.matrix[0, 0] <= 0 or self.matrix[1, 1] <= 0:
            raise ValueError(
                f"camera_info has k = {np.ravel(self.matrix).tolist()}: focal lengths must be above 0"
            )
        share = np.abs(self.matrix) / np.array([[width], [height], [1.0]])
        upright = np.array_equal(np.tril(self.matrix, -1) + np.diag([0, 0, self.matrix[2, 2]]), _LAST_ONE)
        if not upright or share[:2].max() > _RANGE or min(share[0, 0], share[1, 1]) < 1 / _RANGE:
            raise ValueError(
                f"camera_info has k = {np.ravel(self.matrix).tolist()} for {width}x{height} pixels: it must "
                "be [fx, s, cx, 0, fy, cy, 0, 0, 1], with focal lengths between "
                f"1/{_RANGE} and {_RANGE} times the image's size"
            )
        if not self.distorted:
            return
        if self.model not in _MODELS:
            raise ValueError(
                f"distortion_model '{self.model}' is not supported; supported are "
                f"{', '.join(sorted(_MODELS))}"
            )
        if len(self.coefficients) not in _MODELS[self.model]:
            raise ValueError(
                f"distortion_model '{self.model}' needs {' or '.join(map(str, _MODELS[self.model]))} "
                "coefficients, "
                f"camera_info has {len(self.coefficients)}"
            )
        if not np.all(np.isfinite(self.coefficients)):
            raise ValueError(
                f"camera_info has d = {list(self.coefficients)}: every coefficient must be finite"
            )

    def apart(self, other: Camera) -> float:
        """How far two calibrations differ, over the focal length; infinite for another size or model."""
        shape = self.size, self.model, len(self.coefficients)
        if shape != (other.size, other.model, len(other.coefficients)):
            return np.inf
        focal = self.matrix[[0, 1], [0, 1]].min()
        bent = np.abs(np.subtract(self.coefficients, other.coefficients)).max(initial=0.0)
        return float(max(np.abs(self.matrix - other.matrix).max() / focal, bent))

    @property
    def distorted(self) -> bool:
        """True if the lens bends straight lines."""
        return any(value != 0 for value in self.coefficients)

    @property
    def fisheye(self) -> bool:
        """True for the equidistant model of Kannala and Brandt."""
        return self.model in ("equidistant", "fisheye")

    @property
    def opencv_matrix(self) -> np.ndarray:
        """[3, 3] float64 with pixel centres at integers, as OpenCV and ROS have it."""
        return self.matrix - _HALF

    @property
    def opencv_coefficients(self) -> np.ndarray:
        """[K] float64."""
        return np.asarray(self.coefficients, np.float64)

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        init = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        k = self.opencv_matrix
        maps = init(k, self.opencv_coefficients, np.eye(3), k, (width, height), cv2.CV_16SC2)
        return maps[0], maps[1]

    def undistort(self, image: np.ndarray, nearest: bool = False) -> np.ndarray:
        """Takes the lens distortion out of an image; the intrinsics stay as they are.

        Args:
            image: [H, W] or [H, W, C] of this camera's size.
            nearest: no mixing of neighbours (for depth).

        Returns:
            an image of the same shape and type; the same object for an ideal lens.

        Raises:
            ValueError: the image has another size.
        """
        if image.shape[:2] != tuple(self.size):
            raise ValueError(
                f"camera_info is for {self.size[1]}x{self.size[0]} pixels, the image has "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        if not self.distorted:
            return image
        how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        border = np.nan if nearest and image.dtype == np.float32 else 0
        return cv2.remap(image, *self._maps, how, borderMode=cv2.BORDER_CONSTANT, borderValue=border)

    def to_undistorted(self, uv: np.ndarray) -> np.ndarray:
        """Pixels of the published image to pixels of the undistorted one.

        Args:
            uv: [N, 2], 0..1 over the image.

        Returns:
            [N, 2] float64; may lie outside 0..1, or be NaN where the lens model has no inverse. Where nothing
            is distorted, what was given.
        """
        if not self.distorted or len(uv) == 0:
            return uv
        uv = np.asarray(uv, np.float64)
        extent = np.array([self.size[1], self.size[0]], np.float64)
        pixels = (uv * extent - 0.5).reshape(-1, 1, 2)
        k, d = self.opencv_matrix, self.opencv_coefficients
        if self.fisheye:
            moved = cv2.fisheye.undistortPoints(pixels, k, d, None, k)
        else:
            moved = cv2.undistortPoints(pixels, k, d, None, k)
        return (moved.reshape(-1, 2) + 0.5) / extent

    def to_published(self, uv: np.ndarray) -> np.ndarray:
        """Pixels of the undistorted image to pixels of the published one: the inverse of ``to_undistorted``.

        Args:
            uv: [N, 2], 0..1 over the image.

        Returns:
            [N, 2] float64; where nothing is distorted, what was given.
        """
        if not self.distorted or len(uv) == 0:
            return uv
        uv = np.asarray(uv, np.float64)
        extent = np.array([self.size[1], self.size[0]], np.float64)
        k, d = self.opencv_matrix, self.opencv_coefficients
        focal, centre = np.diag(k)[:2], k[:2, 2]
        plane = (uv * extent - 0.5 - centre) / focal
        if self.fisheye:
            moved = cv2.fisheye.distortPoints(plane.reshape(-1, 1, 2), k, d)
        else:
            rays = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
            moved, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), k, d)
        return (moved.reshape(-1, 2) + 0.5) / extent


def differ(one: Camera | None, other: Camera | None, by: float) -> bool:
    """Whether calibrations, None where there is none, are further apart than that."""
    if one is None or other is None:
        return one is not other
    return one.apart(other) > by
