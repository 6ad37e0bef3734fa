"""`d4rt eval DIR`: tables, what is refused, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sequences_on_disk as disk
import torch

from d4rt_ros.cli import main
from d4rt_ros.evaluation.table import ROWS, table
from d4rt_ros.model import D4RT, ModelConfig
from d4rt_ros.model.checkpoints import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny network that knows nothing."""
    torch.manual_seed(0)
    config = ModelConfig(
        frames=4, image_size=(16, 16), patch=(2, 8, 8), vit_width=32, vit_heads=2, vit_depth=2, dec_width=32,
        dec_heads=2, dec_depth=1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(D4RT(config), path)
    return str(path)


def _run(folder: Path, weights: str, *more: str) -> int:
    return main(
        ["eval", str(folder), "--checkpoint", weights, "--device", "cpu", "--precision", "float32", *more]
    )


def test_every_sequence_gets_a_table(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.seven_scenes(tmp_path / "data" / "kitchen")
    disk.euroc(tmp_path / "data" / "V1_01")
    disk.tapvid3d(tmp_path / "data" / "adt.npz")
    out = tmp_path / "figures.json"
    assert _run(tmp_path / "data", weights, "--json", str(out)) == 0
    printed = capsys.readouterr().out
    assert "kitchen (7-Scenes): 8 frames, 1 windows" in printed
    assert "stamps made of frame numbers at 30 Hz" in printed
    figures = json.loads(out.read_text())
    assert figures["refused"] == []
    kitchen, drone, tracks = (figures["sequences"][name] for name in ("kitchen", "V1_01", "adt"))
    assert {name for name, _, _ in ROWS} <= set(kitchen)
    assert {baseline for _, baseline, _ in ROWS} <= set(kitchen)
    assert "rot_deg" in drone and "absrel" not in drone
    assert "aj" in tracks and "track_px" in tracks
    # 7 frames are covered, each turned by 1.5 degrees against the last.
    assert kitchen["rot_deg_still"] == pytest.approx(10.5, abs=0.01)
    assert f"{'absrel':18}{kitchen['absrel']:10.4g}{kitchen['absrel_constant']:10.4g}" in printed


def test_span_and_windows(tmp_path: Path, weights: str) -> None:
    disk.seven_scenes(tmp_path / "kitchen")
    out = tmp_path / "f.json"
    assert _run(tmp_path, weights, "--span", "3", "--json", str(out)) == 0
    scores = json.loads(out.read_text())["sequences"]["kitchen"]
    assert scores["clips"] == 2 and scores["rot_deg_still"] == pytest.approx(4.5, abs=0.01)
    assert _run(tmp_path, weights, "--span", "3", "--windows", "1", "--json", str(out)) == 0
    assert json.loads(out.read_text())["sequences"]["kitchen"]["clips"] == 1


def test_broken_sequences_are_named_and_the_rest_is_measured(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.seven_scenes(tmp_path / "a" / "kitchen")
    disk.seven_scenes(tmp_path / "a" / "scaled", per_metre=5000.0)
    assert _run(tmp_path / "a", weights) == 1
    told = capsys.readouterr()
    assert "d4rt eval: scaled: refused, wrong depth scale" in told.err
    assert "kitchen (7-Scenes)" in told.out and "scaled" not in told.out


def test_nothing_to_measure_is_an_error(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, weights) == 2
    assert "no sequence in the layout" in capsys.readouterr().err
    assert _run(tmp_path, weights, "--windows", "0") == 2
    assert "--windows is 0, it has to be at least 1" in capsys.readouterr().err


def test_figures_that_cannot_be_written_are_told_before_the_work(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.seven_scenes(tmp_path / "kitchen")
    assert _run(tmp_path, weights, "--json", str(tmp_path / "none" / "f.json")) == 2
    told = capsys.readouterr()
    assert "No such file or directory" in told.err and "none/f.json" in told.err
    assert not told.out


def test_table_leaves_out_what_was_not_measured() -> None:
    lines = table(
        {"absrel": 0.2, "absrel_constant": 0.4, "oa": 0.5, "oa_still": 0.0, "clips": 3}
    ).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:4] == ["absrel", "0.2", "0.4", "0.50"]
    assert lines[2].split()[3] == "-"
    assert np.all([len(line) < 110 for line in lines])
