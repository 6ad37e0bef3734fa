"""Scores of a perfect model, a bad one and the baselines, on a world that is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from analytic import AnalyticScene

from d4rt_ros.evaluation.clip import Clip, cut_clips, unit_intrinsics, window_frames
from d4rt_ros.evaluation.evaluate import evaluate
from d4rt_ros.evaluation.scores import score_clip, summarise
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence, TrueTracks
from d4rt_ros.evaluation.track_metrics import metric_intrinsics, tapvid3d_scores
from d4rt_ros.model import Answers, ModelConfig, Queries
from d4rt_ros.tasks import tracks

SIZE = (48, 64)
WORLD = AnalyticScene(num_frames=24, image_size=SIZE, ball_velocity=(0.0, 0.0, 0.0))


def _depths(world: AnalyticScene) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    u, v = torch.tensor((columns.ravel() + 0.5) / SIZE[1]), torch.tensor((rows.ravel() + 0.5) / SIZE[0])
    maps = [
        world.decode(Queries.make(u, v, t, t, t)).xyz[:, 2].reshape(SIZE) for t in range(world.num_frames)
    ]
    return torch.stack(maps).numpy()


def _recorded(world: AnalyticScene) -> Sequence:
    """The world as a data set would have it; the blue channel of the images tells the frame's number."""
    images, depths = world.frames.permute(0, 2, 3, 1).numpy(), _depths(world)
    return Sequence(
        name="ball",
        layout="",
        images=Frames(range(world.num_frames), lambda i: images[i]),
        stamps=np.array(world.stamps),
        intrinsics=world.matrix,
        depth=Frames(range(world.num_frames), lambda i: depths[i]),
        world_from_camera=world.poses,
        static=True,
    )


RECORDED = _recorded(WORLD)


@dataclass(frozen=True)
class Window:
    """Answers about some frames of the world (SceneLike), in scene units of half a metre."""

    world: AnalyticScene
    frames: torch.Tensor
    stamps: tuple[int, ...]
    chosen: torch.Tensor
    unit: float = 2.0

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.chosen)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.world.image_size

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def decode(self, queries: Queries) -> Answers:
        """Ask the world with its own frame numbers."""
        t = {name: self.chosen[getattr(queries, name)] for name in ("t_src", "t_tgt", "t_cam")}
        answers = self.world.decode(replace(queries, **t))
        return replace(answers, xyz=answers.xyz * self.unit, displacement=answers.displacement * self.unit)


@dataclass(frozen=True)
class Knowing:
    """A model that recognises the frames by their blue channel."""

    world: AnalyticScene
    config: ModelConfig = ModelConfig(frames=8)

    def encode(
        self, video: torch.Tensor, stamps: tuple[int, ...] | None = None, aspect_ratio: float | None = None
    ) -> Window:
        """Look the frames up."""
        assert stamps is not None and video.shape[0] == self.config.frames
        assert aspect_ratio == pytest.approx(SIZE[1] / SIZE[0])
        return Window(self.world, video, stamps, video[:, 2, 0, 0].long())


def test_a_perfect_model_scores_perfectly() -> None:
    scores = evaluate(Knowing(WORLD), RECORDED)
    assert scores["clips"] == 1
    for name in (
        "absrel",
        "absrel_shift",
        "cloud_l1",
        "ate",
        "rpe_translation",
        "rpe_rotation_deg",
        "rot_deg",
    ):
        assert scores[name] == pytest.approx(0, abs=2e-4), name
    assert scores["focal_err"] < 1e-3
    # Depth is read at the nearest of 64x48 pixels, on slanted surfaces.
    assert scores["track_px"] < 0.3
    assert scores["delta125"] == 1
    assert scores["visibility_acc"] > 0.97 and scores["oa"] > 0.97
    assert scores["apd"] > 0.85 and scores["aj"] > 0.85


def test_baselines_are_what_a_lazy_model_gets() -> None:
    scores = evaluate(Knowing(WORLD), RECORDED)
    truth = WORLD.poses
    turn = np.degrees(np.arccos((np.trace(truth[0, :3, :3].T @ truth[15, :3, :3]) - 1) / 2))
    assert scores["rot_deg_still"] == pytest.approx(turn)
    chosen = [0, 2, 4, 6, 9, 11, 13, 15]
    spread = truth[chosen, :3, 3] - truth[chosen, :3, 3].mean(0)
    assert scores["ate_still"] == pytest.approx(np.sqrt((spread**2).sum(1).mean()))
    depths = _depths(WORLD)[chosen]
    constant = np.abs(np.median(depths) / depths - 1).mean()
    assert scores["absrel_constant"] == pytest.approx(constant, rel=0.1)
    assert scores["track_px_still"] > 20 * scores["track_px"]
    assert scores["aj_still"] < 0.5 * scores["aj"]
    fx, fy = WORLD.focal
    f = 0.5 / np.tan(np.radians(35))
    default = (abs(f - fx) / fx + abs(f * SIZE[1] / SIZE[0] - fy) / fy) / 2
    assert scores["focal_err_default"] == pytest.approx(default)
    assert scores["visibility_acc_always"] < scores["visibility_acc"]
    assert scores["cloud_l1_constant"] > 100 * scores["cloud_l1"]


def test_wrong_answers_cost() -> None:
    bad = replace(WORLD, noise=0.1, hidden=True, focal=(1.8, 2.4))
    scores = evaluate(Knowing(bad), RECORDED)
    assert scores["focal_err"] == pytest.approx(1.0, abs=0.1)
    assert scores["absrel"] > 0.05
    assert scores["visibility_acc"] == pytest.approx(1 - scores["visibility_acc_always"])
    assert scores["aj"] == 0 and scores["track_px"] > 1


def test_unplaced_cameras_count_as_standing_still() -> None:
    scores = evaluate(Knowing(replace(WORLD, doubtful=True)), RECORDED)
    assert scores["rot_deg"] == scores["rot_deg_still"]
    assert scores["ate"] == pytest.approx(scores["ate_still"])
    assert scores["absrel"] < 1e-3  # depth without confidence is scored all the same


def test_what_truth_is_missing_is_not_measured() -> None:
    bare = replace(RECORDED, depth=None, static=False)
    names = set(evaluate(Knowing(WORLD), bare))
    assert {"rot_deg", "ate", "focal_err"} <= names
    assert not {"absrel", "track_px", "cloud_l1"} & names
    drawn = replace(RECORDED, world_from_camera=None)
    names = set(evaluate(Knowing(WORLD), drawn))
    assert "absrel" in names and not {"rot_deg", "track_px", "cloud_l1"} & names
    with pytest.raises(DataError, match="ball: neither depth, poses"):
        evaluate(Knowing(WORLD), replace(drawn, depth=None, intrinsics=None))


def test_sparse_depth_is_enough() -> None:
    holes = np.full((24, *SIZE), np.nan, np.float32)
    holes[:, 5, 5:30] = _depths(WORLD)[:, 5, 5:30]
    scores = evaluate(Knowing(WORLD), replace(RECORDED, depth=Frames(range(24), lambda i: holes[i])))
    assert scores["absrel"] == pytest.approx(0, abs=1e-5)
    empty = replace(RECORDED, depth=Frames(range(24), lambda i: np.full(SIZE, np.nan, np.float32)))
    assert "absrel" not in evaluate(Knowing(WORLD), empty)


def test_annotated_tracks_are_used_as_they_are() -> None:
    world = replace(WORLD, ball_velocity=(0.05, 0.0, 0.0))  # what depth and poses would not tell
    u, v = torch.tensor([0.4, 0.35, 0.8]), torch.tensor([0.52, 0.5, 0.3])
    t = torch.arange(24)[:, None]
    answers = world.decode(Queries.make(u, v, 0, t, t).apply(lambda x: x.reshape(-1)))
    annotated = TrueTracks(
        xyz=answers.xyz.reshape(24, 3, 3).double().numpy(),
        visible=answers.visibility.reshape(24, 3).numpy() > 0.5,
        query_uv=torch.stack([u, v], -1).numpy(),
        query_t=np.zeros(3, np.int64),
    )
    sequence = replace(RECORDED, tracks=annotated, depth=None, static=False)
    scores = evaluate(Knowing(world), sequence)
    assert scores["track_px"] == pytest.approx(0, abs=1e-2)
    assert scores["aj"] == pytest.approx(1) and scores["visibility_acc"] == 1
    assert evaluate(Knowing(WORLD), sequence)["track_px"] > 1
    annotated.visible[0, 2] = False  # cannot be asked for by its pixel there
    (clip,) = cut_clips(sequence, 8)
    assert clip.tracks is not None and clip.tracks.uv.shape == (8, 2, 2)
    samples = score_clip(Knowing(world).encode(clip.video, clip.stamps, clip.aspect_ratio), clip)
    assert len(samples["track_px"]) == annotated.visible[[2, 4, 6, 9, 11, 13, 15], :2].sum()


def test_tracks_are_scored_at_the_resolution_of_the_benchmark() -> None:
    (clip,) = cut_clips(RECORDED, 8)
    scene = Knowing(replace(WORLD, noise=0.01)).encode(clip.video, clip.stamps, clip.aspect_ratio)
    assert clip.tracks is not None
    asked = tracks(scene, *torch.tensor(clip.tracks.uv[0], dtype=torch.float32).T, 0)
    expected = tapvid3d_scores(
        asked.xyz.numpy(),
        asked.visibility.numpy() > 0.5,
        clip.tracks.xyz,
        clip.tracks.visible,
        metric_intrinsics(WORLD.matrix, SIZE),
        clip.tracks.valid,
    )
    again = Knowing(replace(WORLD, noise=0.01, rng=torch.Generator().manual_seed(3)))
    found = score_clip(
        again.encode(clip.video, clip.stamps, clip.aspect_ratio),
        replace(clip, depth=None, world_from_camera=None),
    )
    assert 0.3 < expected.average_within < 0.9
    assert found["apd"][0] == pytest.approx(expected.average_within, abs=0.02)


def _indices(count: int, length: int, span: int = 15) -> list[list[int]]:
    return [w.tolist() for w in window_frames(np.arange(count) * 33, length, span)]


def test_windows_span_fifteen_frames_whatever_the_model() -> None:
    assert _indices(32, 8) == [[0, 2, 4, 6, 9, 11, 13, 15], [16, 18, 20, 22, 25, 27, 29, 31]]
    assert _indices(33, 16) == [list(range(16)), list(range(16, 32))]
    assert _indices(24, 24) == [list(range(24))]
    assert _indices(10, 8) == [[0, 1, 3, 4, 5, 6, 8, 9]]
    assert _indices(6, 8) == [[0, 1, 2, 3, 4, 5]]


def test_no_window_bridges_a_gap() -> None:
    stamps = np.arange(32) * 33
    stamps[20:] += 500
    assert [w[0] for w in window_frames(stamps, 8)] == [0]


def test_short_sequences_are_padded_and_scored_without_the_padding() -> None:
    short = replace(
        RECORDED,
        images=RECORDED.images[:5],
        stamps=RECORDED.stamps[:5],
        depth=RECORDED.depth[:5],  # type: ignore[index]
        world_from_camera=WORLD.poses[:5],
    )
    (clip,) = cut_clips(short, 8)
    assert clip.video.shape[0] == 8 and clip.frames == 5 and clip.span == (0, 4)
    assert np.diff(clip.stamps).min() > 0
    assert torch.equal(clip.video[7], clip.video[4])
    assert evaluate(Knowing(WORLD), short)["rot_deg"] == pytest.approx(0, abs=1e-3)


def test_long_windows_measure_rotation_inside() -> None:
    (clip,) = cut_clips(RECORDED, 24)
    assert clip.span == (0, 15)
    (clip,) = cut_clips(RECORDED, 16)
    assert clip.span == (0, 15)


def test_images_of_different_sizes_are_refused() -> None:
    odd = Frames(range(24), lambda i: np.zeros((48, 64 + i % 2, 3), np.uint8))
    with pytest.raises(DataError, match="ball: images of different sizes from frame 0 to 15"):
        evaluate(Knowing(WORLD), replace(RECORDED, images=odd))


def test_most_windows_are_spread() -> None:
    assert [c.name for c in cut_clips(RECORDED, 2, most=2, span=3)] == ["ball[0..3]", "ball[20..23]"]


def test_summary_by_hand() -> None:
    clips: Seq[dict[str, list[float]]] = [
        {"absrel": [0.1], "track_px": [1.0, 2.0, 9.0]},
        {"absrel": [0.3], "track_px": [float("inf")], "focal_err": [0.2]},
        {"absrel": [0.8], "focal_err": []},
    ]
    assert summarise(clips) == {"absrel": pytest.approx(0.4), "track_px": 5.5, "focal_err": 0.2, "clips": 3}


def test_tracks_need_a_visible_start() -> None:
    assert unit_intrinsics(WORLD.matrix, SIZE)[0, 0] == pytest.approx(0.9)
    clip = next(iter(cut_clips(RECORDED, 8)))
    assert clip.tracks is not None and clip.tracks.visible[0].all()
    nothing = Clip("", clip.video, clip.stamps, clip.aspect_ratio, 8, (0, 7))
    assert score_clip(Knowing(WORLD).encode(clip.video, clip.stamps, clip.aspect_ratio), nothing) == {}
