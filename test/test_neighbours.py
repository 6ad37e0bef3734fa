"""What a guess of depth is wrong by, as neighbouring cells tell it together."""

from __future__ import annotations

import numpy as np
import torch
from test_structure import error, found_in, pixels, walls

from d4rt_ros.model import neighbours, structure
from d4rt_ros.model.neighbours import guess_error

SIDE = 8


def flat(value: float) -> np.ndarray:
    return np.full((1, SIDE * SIDE), value)


def left_half() -> np.ndarray:
    return np.broadcast_to(np.arange(SIDE) < SIDE // 2, (SIDE, SIDE)).reshape(1, -1)


def test_it_is_the_least_squares_field() -> None:
    """Against all that is asked of it at once: told errors, small, and alike beside and below."""
    random = np.random.default_rng(0)
    guess, told = random.normal(0, 0.2, (2, 2, SIDE * SIDE))
    precision = random.uniform(0, 200, guess.shape)
    found = guess_error(guess, told, precision)
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    pairs = [*zip(index[:, :-1].ravel(), index[:, 1:].ravel()), *zip(index[:-1].ravel(), index[1:].ravel())]
    for frame in range(2):
        rows, right = [], []
        for cell in range(SIDE * SIDE):
            one = np.eye(SIDE * SIDE)[cell]
            certain = (1 / precision[frame, cell] + neighbours.OWN**2) ** -0.5
            rows += [one * certain, one / neighbours._GUESSED]
            right += [(told - guess)[frame, cell] * certain, 0.0]
        for a, b in pairs:
            step = guess[frame, a] - guess[frame, b]
            loose = neighbours._ALIKE * (1 + (step / neighbours._BREAK) ** 2) ** 0.5
            rows.append((np.eye(SIDE * SIDE)[a] - np.eye(SIDE * SIDE)[b]) / loose)
            right.append(0.0)
        expected = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
        np.testing.assert_allclose(found[frame], expected, atol=1e-9)


def test_noise_of_single_cells_averages_out_and_a_common_error_is_found() -> None:
    told = 0.3 + np.random.default_rng(0).normal(0, 0.3, (4, SIDE * SIDE))
    found = guess_error(np.zeros_like(told), told, np.full_like(told, 0.3**-2))
    assert found.std() < 0.05 < 0.25 < told.std()
    assert 0.1 < found.mean() < 0.3, "which is believed in part"
    surer = guess_error(np.zeros_like(told), told, np.full_like(told, 0.05**-2))
    assert found.mean() < surer.mean() < 0.3


def test_what_tells_nothing_takes_it_from_its_neighbours_and_without_any_nothing_is_wrong() -> None:
    precision = np.where(left_half(), 1e4, 0.0)
    found = guess_error(flat(0.0), flat(0.4), precision).reshape(SIDE, SIDE)
    assert (found[:, SIDE // 2] > 0.2).all()
    assert (np.diff(found, axis=1)[:, SIDE // 2 :] < 0).all(), "and less and less the further"
    assert np.abs(guess_error(flat(0.0), flat(0.4), flat(0.0))).max() < 1e-3


def test_an_error_ends_where_the_guess_has_an_edge() -> None:
    precision, told = np.where(left_half(), 1e4, 0.0), np.where(left_half(), 0.4, 0.0)
    edge = np.where(left_half(), 0.0, 1.0)
    across = [
        guess_error(g, g + told, precision).reshape(SIDE, SIDE)[:, SIDE // 2] for g in (flat(0.0), edge)
    ]
    assert across[1].max() < 0.1 < across[0].min()


def test_no_guess_is_taken_to_be_very_far_off() -> None:
    assert guess_error(flat(0.0), flat(50.0), flat(1e6)).max() < 1.0


def test_a_slope_that_every_frame_guesses_wrong_is_righted(monkeypatch) -> None:
    frames, depth, _ = walls()
    slope = torch.linspace(-0.35, 0.35, 64)[:, None]
    guess = pixels(depth, 64)[..., 2].log() + slope
    together = error(found_in(frames, guess).log_depth, depth)
    monkeypatch.setattr(structure, "guess_error", lambda guess, *_: np.zeros_like(guess))
    alone = error(found_in(frames, guess).log_depth, depth)
    assert together < 0.8 * alone
