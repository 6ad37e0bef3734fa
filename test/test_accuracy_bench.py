"""Held-out scenes as clips: their truth is that of the scenes, and a model that knows it scores well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import sequences_on_disk as disk
import torch

from bench.accuracy import KEYS, line, main, measure
from bench.procedural import FIRST_SEED, batch_clip, held_out_clips
from d4rt_ros.evaluation.clip import Clip
from d4rt_ros.evaluation.evaluate import evaluate_clips
from d4rt_ros.evaluation.readers import open_sequences
from d4rt_ros.model import D4RT, ModelConfig
from d4rt_ros.training.oracle import OracleScene
from d4rt_ros.training.scenes import ProceduralScenes, SceneBatch, SceneRecipe

FRAMES, SIZE = 4, (24, 32)
CONFIG = ModelConfig(frames=FRAMES, image_size=SIZE, patch=(2, 8, 8))


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    """Two clips."""
    recipe = SceneRecipe(frames=FRAMES, size=SIZE)
    return ProceduralScenes(recipe).sample(2, torch.Generator().manual_seed(5))


@dataclass(frozen=True)
class Model:
    """Knows the clips in their order."""

    scenes: list[OracleScene]
    config: ModelConfig = CONFIG

    def encode(
        self, video: torch.Tensor, stamps: object = None, aspect_ratio: float | None = None
    ) -> OracleScene:
        """Find the clip by its video."""
        (found,) = [s for s in self.scenes if torch.equal(s.frames, video)]
        assert aspect_ratio is not None and 0.2 < aspect_ratio < 5
        return found


def test_a_model_that_knows_the_scenes_scores_perfectly(batch: SceneBatch) -> None:
    clips = [batch_clip(batch, row, str(row)) for row in range(2)]
    scores = evaluate_clips(Model([OracleScene(batch, row, scale=0.4) for row in range(2)]), clips)
    for name in ("absrel", "cloud_l1", "ate", "rot_deg", "focal_err", "track_px"):
        assert scores[name] == pytest.approx(0, abs=2e-2), name
    assert scores["absrel"] < 1e-4 and scores["rot_deg"] < 1e-2
    assert scores["visibility_acc"] > 0.99 and scores["delta125"] == 1  # float32 against float64 at edges
    assert scores["aj"] > 0.95 and scores["oa"] > 0.99
    assert scores["absrel_constant"] > 0.05 and scores["track_px_still"] > 0.5


def test_depth_samples_are_the_rendered_depth(batch: SceneBatch) -> None:
    clip = batch_clip(batch, 1, "")
    assert clip.depth is not None and clip.depth_uv is not None
    for frame, (uv, depth) in enumerate(zip(clip.depth_uv, clip.depth)):
        rows, columns = np.floor(uv[:, 1] * SIZE[0]).astype(int), np.floor(uv[:, 0] * SIZE[1]).astype(int)
        np.testing.assert_allclose(depth, batch.depth[1, frame].numpy()[rows, columns], rtol=1e-6)
        assert np.isfinite(depth).all()


def test_tracks_start_where_they_are_asked(batch: SceneBatch) -> None:
    clip = batch_clip(batch, 0, "")
    assert clip.tracks is not None and clip.intrinsics is not None
    assert clip.tracks.visible[0].all() and clip.tracks.valid.all()
    k = clip.intrinsics
    at = clip.tracks.xyz @ k.T
    seen = clip.tracks.visible
    np.testing.assert_allclose(clip.tracks.uv[seen], (at[..., :2] / at[..., 2:])[seen], atol=1e-4)


def test_held_out_clips_are_always_the_same() -> None:
    first: list[Clip] = list(held_out_clips(CONFIG, 3))
    again = list(held_out_clips(CONFIG, 1))
    assert [c.name for c in first] == [f"procedural[{FIRST_SEED}:{row}]" for row in range(3)]
    assert torch.equal(first[0].video, again[0].video)
    assert not torch.equal(first[0].video, first[1].video)
    assert FIRST_SEED < 2**32  # training draws above


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["accuracy", "--data", "/nowhere"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "/nowhere: no such folder" in capsys.readouterr().err


def test_measures_all_that_is_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"vit_width": 32, "vit_heads": 2, "vit_depth": 2, "dec_width": 32, "dec_heads": 2, "dec_depth": 1}
    model = D4RT(replace(CONFIG, **small)).eval()
    assert set(measure(model, [], clips=1, windows=1)) == {"procedural"}
    disk.seven_scenes(tmp_path / "kitchen")
    disk.seven_scenes(tmp_path / "scaled", per_metre=5000)
    refusals: list[str] = []
    results = measure(model, open_sequences(tmp_path, refusals.append), clips=1, windows=1)
    assert set(results) == {"procedural", "kitchen"}
    assert set(KEYS) <= set(results["kitchen"]) and set(KEYS) <= set(results["procedural"])
    assert "scaled: refused" in refusals[0]


def test_json_line_has_every_key_of_every_sequence() -> None:
    out = line({"procedural": {"absrel": 0.123456, "clips": 3, "aj": 0.5}}, everything=False)
    row = out["procedural"]
    assert isinstance(row, dict)
    assert set(row) == {*KEYS, "clips"}
    assert row["absrel"] == 0.1235 and row["ate"] is None
    everything = line({"procedural": {"absrel": 0.1, "clips": 3, "aj": 0.5}}, everything=True)["procedural"]
    assert isinstance(everything, dict) and everything["aj"] == 0.5
