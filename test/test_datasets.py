"""Readers of data sets, on small samples of one scene written in each set's own layout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips_on_disk import (
    DISC,
    DISC_STEP,
    STEP,
    WALL,
    WRITERS,
    F,
    H,
    T,
    W,
    damage_depth,
    damage_missing,
    damage_poses,
    write_movi,
    write_pointodyssey,
    write_rgbd,
    write_tartanair,
)
from PIL import Image
from plane_clips import FOCAL, plane_clip, plane_clips
from tiny_recipe import tiny

from d4rt_ros.model import ModelConfig, Queries
from d4rt_ros.training.augment import CroppedClips
from d4rt_ros.training.datasets import open_source
from d4rt_ros.training.datasets.lifted import surface_normals
from d4rt_ros.training.datasets.rgbd import RgbdSequence
from d4rt_ros.training.datasets.sequences import BrokenSequence, FolderSource
from d4rt_ros.training.datasets.tartanair import TartanAirSequence
from d4rt_ros.training.feed import Feed, focal_lengths
from d4rt_ros.training.recipe import SourceSettings, recipe_from_dict
from d4rt_ros.training.sampling import SamplingSettings, sample_queries

MODEL = ModelConfig(frames=4, image_size=(24, 32), patch=(2, 8, 8), vit_width=32, dec_width=32)


def opened(kind: str, root: Path, **options: Any) -> FolderSource:
    source = open_source(SourceSettings(kind=kind, path=str(root), options=options), MODEL)
    assert isinstance(source, FolderSource)
    return source


@pytest.mark.parametrize("kind", WRITERS)
def test_answers_of_every_set_are_those_of_the_scene(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "scene")
    clips = opened(kind, tmp_path, max_stride=1).make([3, 8])
    assert clips.video.shape == (2, 4, 3, 24, 32) and clips.video.dtype == torch.uint8
    torch.testing.assert_close(clips.aspect_ratio, torch.full((2,), W / H))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    q = sample_queries(clips, SamplingSettings(count=400), 0.3, generators)
    truth = clips.answer(q)
    assert float(truth.xyz_valid.float().mean()) > 0.95
    # the same worked out from the scene: a point of the wall stands, one of the disc glides with it
    shrink = 320.0 / (F * 640 / W) if kind == "tartanair" else 1.0  # see write_tartanair
    f = F / W, F / H
    z = WALL * shrink
    on_disc = torch.zeros_like(truth.xyz_valid)
    if kind in ("movi", "pointodyssey"):
        on_disc = truth.xyz[..., 2] < 3
        assert 0.02 < float(on_disc.float().mean()) < 0.6
    depth = torch.where(on_disc, DISC, z)
    shift = DISC_STEP * (q.t_tgt - q.t_src) * on_disc
    if kind == "tartanair":
        f = 0.5, 2 / 3
    x = (q.u - 0.5) / f[0] * depth + STEP * (q.t_src - q.t_cam) + shift
    y = (q.v - 0.5) / f[1] * depth
    expected = torch.stack([x, y, depth.expand_as(x)], -1)
    known = truth.xyz_valid
    torch.testing.assert_close(truth.xyz[known], expected[known].float(), atol=6e-3, rtol=2e-3)
    u = (x + STEP * (q.t_cam - q.t_tgt)) / depth * f[0] + 0.5
    torch.testing.assert_close(truth.uv[known][:, 0], u[known].float(), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(truth.uv[known][:, 1], q.v[known], atol=2e-3, rtol=1e-3)
    moved = torch.stack([shift, torch.zeros_like(shift), torch.zeros_like(shift)], -1)
    torch.testing.assert_close(truth.displacement[known], moved[known].float(), atol=2e-3, rtol=0)
    flat = truth.normal[truth.normal_valid]
    assert len(flat) and torch.allclose(flat, torch.tensor([0.0, 0.0, -1.0]), atol=0.02)
    seen = truth.visibility[truth.visibility_valid] > 0.5
    inside = ((truth.uv >= 0) & (truth.uv <= 1)).all(-1)[truth.visibility_valid]
    assert not bool((seen & ~inside).any())
    assert float((seen == inside).float().mean()) > 0.9  # few are hidden by the disc


@pytest.mark.parametrize("kind", WRITERS)
def test_every_set_tells_its_lens(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "scene")
    clips, focal = opened(kind, tmp_path).make([3, 8]), 0.5 if kind == "tartanair" else F / W
    assert focal_lengths(clips).tolist() == pytest.approx([focal] * 2, rel=1e-3)
    half = CroppedClips(clips, torch.tensor([[0.25, 0.2, 0.5, 0.6]]).expand(2, 4))
    assert focal_lengths(half).tolist() == pytest.approx([2 * focal] * 2, rel=1e-3)


def test_a_disc_hides_the_wall_behind_it(tmp_path: Path) -> None:
    write_movi(tmp_path / "scene")
    clips = opened("movi", tmp_path, max_stride=1).make([0])
    disc = clips.depth[0, 3] < 3
    before = clips.depth[0, 0] > 3
    y, x = (disc & before).nonzero()[:, 0], (disc & before).nonzero()[:, 1]
    assert len(y) == 0 or bool((clips.motion[0, 0, y, x] == 0).all())
    assert float(clips.motion[0, 0][clips.depth[0, 0] < 3].min()) == pytest.approx(DISC_STEP, abs=1e-4)
    u, v = torch.linspace(0.05, 0.95, 40), torch.full((40,), 0.5)
    q = Queries.make(u, v, 0, 3, 3).apply(lambda t: t[None])
    truth = clips.answer(q)
    wall = truth.xyz[0, :, 2] > 3
    at = (truth.uv[0, :, 0] * 32).long().clamp(0, 31)
    hidden = wall & (clips.depth[0, 3, 12, at] < 3)
    assert bool(hidden.any()) and not bool(truth.visibility[0][hidden].any())


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_missing, "frames|images|missing"),
        (damage_poses, "not finite"),
        (damage_depth, "wrong depth scale|known"),
    ],
)
def test_broken_sequences_are_refused_by_name_and_counted(
    kind: str,
    damage: Callable[[str, Path], None],
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    WRITERS[kind](tmp_path / "sound")
    WRITERS[kind](tmp_path / "spoilt")
    damage(kind, tmp_path / "spoilt")
    with caplog.at_level(logging.WARNING):
        source = opened(kind, tmp_path)
    assert list(source.refused) == ["spoilt"]
    assert "spoilt" in caplog.text and "1 refused so far" in caplog.text
    assert len(source.make([1, 2]).video) == 2
    WRITERS[kind](tmp_path / "alone" / "spoilt")
    damage(kind, tmp_path / "alone" / "spoilt")
    with pytest.raises(BrokenSequence, match=f"all 1 sequences.*spoilt: .*({reason})"):
        opened(kind, tmp_path / "alone")


def test_a_sequence_found_broken_on_reading_is_skipped(tmp_path: Path) -> None:
    write_rgbd(tmp_path / "sound")
    write_rgbd(tmp_path / "worn")
    source = opened("rgbd", tmp_path)
    for path in (tmp_path / "worn" / "depth").iterdir():
        path.write_bytes(b"not a picture")
    assert len(source.make(list(range(8))).video) == 8
    assert list(source.refused) == ["worn"] and "unreadable" in source.refused["worn"]


def test_frames_that_lost_tracking_are_left_out(tmp_path: Path) -> None:
    write_rgbd(tmp_path / "scene")
    np.savetxt(tmp_path / "scene" / "pose" / "1.txt", np.full((4, 4), -np.inf))
    source = opened("rgbd", tmp_path)
    (sequence,) = source._sequences.values()
    assert sequence.length == T - 1 and sequence.lost == 1


def test_segments_with_a_palette_are_numbers_as_kubric_writes_them(tmp_path: Path) -> None:
    write_movi(tmp_path / "plain")
    expected = opened("movi", tmp_path, max_stride=1).make([3])
    for path in (tmp_path / "plain").glob("segmentation_*.png"):
        with Image.open(path) as image:
            coloured = Image.fromarray(np.array(image))
        coloured.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
        coloured.save(path)
    found = opened("movi", tmp_path, max_stride=1).make([3])
    assert torch.equal(found.video, expected.video)
    query = Queries.make(torch.linspace(0, 1, 9), 0.5, 0, 3, 3).apply(lambda x: x[None])
    torch.testing.assert_close(found.answer(query).xyz, expected.answer(query).xyz, equal_nan=True)
    cv2.imwrite(str(path), np.zeros((H, W, 3), np.uint8))
    with pytest.raises(BrokenSequence, match="holds colours, not numbers of segments"):
        opened("movi", tmp_path).make([1, 2, 3, 4])


def test_images_that_were_resized_keep_tartanair_s_lens(tmp_path: Path) -> None:
    write_tartanair(tmp_path / "scene")
    whole = TartanAirSequence(tmp_path / "scene").clip([0], (24, 32))
    for path in (tmp_path / "scene" / "image_left").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (160, 120)))
    small = TartanAirSequence(tmp_path / "scene").clip([0], (24, 32))
    assert torch.equal(small.camera, whole.camera)
    assert small.camera[0].tolist() == pytest.approx([0.5, 2 / 3, 320.5 / 640, 240.5 / 480])


def test_what_is_too_far_to_be_written_is_not_known(tmp_path: Path) -> None:
    WRITERS["pointodyssey"](tmp_path / "scene")
    for path in (tmp_path / "scene" / "depths").iterdir():
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth[: H // 3] = 65535
        cv2.imwrite(str(path), depth)
    depth = opened("pointodyssey", tmp_path).make([1]).depth
    assert bool(depth[:, :, : 24 // 3 - 1].isnan().all())
    assert float(depth.nan_to_num(0.0).max()) < 100


def test_a_tag_that_turns_a_picture_is_left_alone(tmp_path: Path) -> None:
    write_rgbd(tmp_path / "scene")
    plain = opened("rgbd", tmp_path, max_stride=1).make([1])
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: to be turned right, as telephones write it
    tag = turned.tobytes()
    for path in (tmp_path / "scene" / "color").iterdir():
        start, rest = path.read_bytes()[:2], path.read_bytes()[2:]
        path.write_bytes(start + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + rest)
    tagged = opened("rgbd", tmp_path, max_stride=1).make([1])
    assert torch.equal(tagged.video, plain.video)
    assert torch.equal(tagged.aspect_ratio, plain.aspect_ratio)


def test_scans_of_which_every_nth_frame_was_exported_are_read(tmp_path: Path) -> None:
    write_rgbd(tmp_path / "scene")
    for folder in ("color", "depth", "pose"):
        for path in sorted((tmp_path / "scene" / folder).iterdir(), key=lambda p: -int(p.stem)):
            path.rename(path.with_stem(str(20 * int(path.stem))))
    assert opened("rgbd", tmp_path).make([1]).video.shape[0] == 1


def test_files_that_are_wrong_in_an_unexpected_way_refuse_one_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "odd"):
        write_rgbd(tmp_path / name)
    real = RgbdSequence.clip
    monkeypatch.setattr(
        RgbdSequence, "clip", lambda self, *a: [][1] if self._path.name == "odd" else real(self, *a)
    )
    source = opened("rgbd", tmp_path)
    assert list(source.refused) == ["odd"]
    assert source.refused["odd"].startswith("IndexError")


@pytest.mark.parametrize("wrong", ["valids", "intrinsics"])
def test_sequences_none_of_whose_tracks_is_in_an_image_are_refused(tmp_path: Path, wrong: str) -> None:
    """They are marked as visible all the same, and nothing could be asked about them."""
    for name in ("good", "odd"):
        write_pointodyssey(tmp_path / name)
    values = dict(np.load(tmp_path / "odd" / "anno.npz"))
    values[wrong] = np.zeros_like(values[wrong])
    if wrong == "intrinsics":
        values[wrong][:] = [[F, 0, 10 * W], [0, F, H / 2], [0, 0, 1]]
    np.savez(tmp_path / "odd" / "anno.npz", **values)
    assert opened("pointodyssey", tmp_path).refused == {"odd": "no track is seen in frames 0 to 0"}


def test_a_crop_that_leaves_no_track_to_ask_about_is_not_made(tmp_path: Path) -> None:
    write_pointodyssey(tmp_path / "scene")
    values = dict(np.load(tmp_path / "scene" / "anno.npz"))
    corner = np.flatnonzero(values["visibs"].all(0))[:1]
    kept = {name: values[name][:, corner] for name in ("trajs_3d", "visibs", "valids")}
    np.savez(tmp_path / "scene" / "anno.npz", **{**values, **kept})
    source = {"kind": "pointodyssey", "path": str(tmp_path)}
    feed = Feed(recipe_from_dict(tiny(sources=[source], augment={"crop": 1.0})))
    batches = [feed.batch(number) for number in range(12)]
    assert all(batch.truth.xyz_valid.any(1).all() for batch in batches)
    whole = torch.cat([batch.aspect_ratio for batch in batches]) == W / H
    assert 0 < whole.sum() < len(whole)


def test_sequences_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("train", "validation"):
        write_rgbd(tmp_path / folder / "0")
    source = opened("rgbd", tmp_path)
    damage_depth("rgbd", tmp_path / "train" / "0")
    for seed in range(8):
        assert source.make([seed]).video.shape[0] == 1
    assert list(source.refused) == ["train/0"]


@pytest.mark.parametrize("kind", WRITERS)
def test_linked_sequences_are_found_and_loops_end(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "disk" / "far")
    WRITERS[kind](tmp_path / "set" / "deep" / "near")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "deep" / "loop").symlink_to(tmp_path / "set")
    assert list(opened(kind, tmp_path / "set")._sequences) == ["deep/near", "linked/far"]


def test_too_short_sequences_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no sequences"):
        opened("movi", tmp_path)
    write_movi(tmp_path / "scene")
    long = ModelConfig(frames=8, image_size=(24, 32), patch=(2, 8, 8), vit_width=32, dec_width=32)
    with pytest.raises(BrokenSequence, match="6 frames are fewer than the 8"):
        open_source(SourceSettings(kind="movi", path=str(tmp_path)), long)
    with pytest.raises(ValueError, match="options of source 'movi'"):
        opened("movi", tmp_path, speed=3)


def test_the_same_seed_draws_the_same_clip(tmp_path: Path) -> None:
    write_rgbd(tmp_path / "scene")
    source = opened("rgbd", tmp_path)
    assert torch.equal(source.make([5]).video, source.make([5]).video)


def test_normals_of_a_tilted_plane() -> None:
    clip = plane_clip(4)
    depth, size = clip.depth[0].double(), 16
    tilt = (depth[0, 9] - depth[0, 6]) / ((depth[0, 9] * 1.5 + depth[0, 6] * 1.5) / size / FOCAL)
    expected = torch.nn.functional.normalize(torch.stack([tilt, tilt * 0, tilt * 0 - 1]), dim=0)
    found = surface_normals(clip.depth, clip.camera)[0, 8, 8].double()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_a_crop_answers_like_the_whole() -> None:
    clips = plane_clips([0, 1], size=32)
    box = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]])
    cropped = CroppedClips(clips, box)
    torch.testing.assert_close(cropped.aspect_ratio, torch.tensor([2.0, 1.0]))
    assert torch.equal(cropped.video[1], clips.video[1])
    torch.testing.assert_close(cropped.depth[0, 0, 16, ::2], clips.depth[0, 0, 20, 8:24])
    q = Queries.make(torch.tensor([[0.1, 0.5, 0.9]] * 2), torch.tensor([[0.4, 0.5, 0.6]] * 2), 0, 3, 2)
    inside = cropped.answer(q)
    whole = clips.answer(
        Queries.make(box[:, :1] + q.u * box[:, 2:3], box[:, 1:2] + q.v * box[:, 3:], 0, 3, 2)
    )
    assert torch.equal(inside.xyz, whole.xyz)
    torch.testing.assert_close(inside.uv * box[:, None, 2:] + box[:, None, :2], whole.uv)
    far = clips.answer(Queries.make(torch.tensor([[0.99]] * 2), 0.6, 0, 0, 0))
    assert bool(far.visibility.all())
    edge = cropped.answer(Queries.make(torch.tensor([[0.999, 0.001]] * 2), 0.5, 0, 3, 3))
    out = ((edge.uv < 0) | (edge.uv > 1)).any(-1)
    assert bool(out.any()) and not bool(edge.visibility[out].any())
