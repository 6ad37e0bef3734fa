"""What neighbouring cells say of each other's depth. Not part of the paper.

A guess by looks is wrong by whole walls and floors; what triangles say of a single cell is noisy. So what
the guess is wrong by is taken for a smooth field, which breaks where the guess does, and is read off all
triangles of a frame at once (a Gaussian Markov random field; Rue and Held, 2005).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

from d4rt_ros.model.bundle import Array

OWN = 0.1  # deviation of log depth of what a cell has for itself, beside the field
_GUESSED = 0.25  # the same of the field, told of each cell anew: what is told of neighbours errs alike
_ALIKE = 0.06  # and of the field's steps from cell to cell
_BREAK = 0.1  # step of the guess at which the field may step by 1.4 times as much
_MOST = 1.0  # of log depth; no guess is taken to be further off
_TELLING = 1e-6  # precision of a cell that tells nothing


def guess_error(guess: Array, told: Array, precision: Array) -> Array:
    """By how much neighbours together say that log depth is more than guessed: [T, n * n], as `guess`.

    Args:
        guess: [T, n * n], log depths, row by row.
        told: [T, n * n], log depths that cells tell each by itself.
        precision: [T, n * n], one over the variance of `told`; 0 where a cell tells nothing.
    """
    weight = 1.0 / (1.0 / np.maximum(precision, _TELLING) + OWN**2)
    error = (told - guess).clip(-_MOST, _MOST)
    return np.stack([_field(*frame) for frame in zip(guess, error, weight)]).astype(guess.dtype)


def _field(guess: Array, error: Array, weight: Array) -> Array:
    """The likeliest field of one frame; as cells are bound to those beside and below: a system of bands."""
    side = round(len(guess) ** 0.5)
    cells = guess.reshape(side, side)
    bands = np.zeros((side + 1, len(guess)))  # the diagonal, and what lies below it, as LAPACK has them
    bands[0] = weight + _GUESSED**-2
    for axis, away in ((1, 1), (0, side)):
        bound = _ALIKE**-2 / (1.0 + (np.diff(cells, axis=axis) / _BREAK) ** 2)
        tied = np.pad(bound, ((0, 1 - axis), (0, axis))).ravel()  # the last of a row or column to none
        bands[away] -= tied
        bands[0] += tied
        bands[0, away:] += tied[:-away]
    return np.asarray(solveh_banded(bands, weight * error, lower=True, overwrite_ab=True, check_finite=False))
