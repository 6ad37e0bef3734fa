"""Readers of real data sets: what is broken is refused or skipped with a count, by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import sequences_on_disk as disk

from d4rt_ros.evaluation.readers import open_sequences
from d4rt_ros.evaluation.sequence import DataError, Frames, Sequence


def test_a_lens_that_is_not_understood_is_named(tmp_path: Path) -> None:
    sensor = disk.euroc(tmp_path / "V1") / "mav0" / "cam0" / "sensor.yaml"
    sensor.write_text(sensor.read_text().replace("radial-tangential", "fov"))
    with pytest.raises(DataError, match=r"sensor.yaml: .*distortion_model is 'fov', understood are radial"):
        open_sequences(tmp_path)


def test_a_table_that_was_cut_off_is_told(tmp_path: Path) -> None:
    truth = disk.tum(tmp_path / "room") / "groundtruth.txt"
    truth.write_text(truth.read_text() + "\n1305031453.1 0.5 0.5")
    with pytest.raises(DataError, match="groundtruth.txt: rows of 3 and 8 numbers"):
        open_sequences(tmp_path)


def test_broken_kitti_is_skipped_with_a_count(tmp_path: Path) -> None:
    root = disk.kitti(tmp_path / "dataset")
    rows = (root / "poses" / "07.txt").read_text().splitlines()
    rows[1] = " ".join(["nan"] * 12)
    (root / "poses" / "07.txt").write_text("\n".join(rows))
    (root / "sequences" / "07" / "velodyne" / "000004.bin").unlink()
    times = (root / "sequences" / "07" / "times.txt").read_text().splitlines()
    (root / "sequences" / "07" / "times.txt").write_text("\n".join(times[:-1]))
    sequence = disk.read_one(root)
    assert len(sequence) == disk.COUNT - 3
    notes = " ".join(sequence.notes)
    assert "holds NaN (000001)" in notes and "no depth (000004)" in notes and "no time (000007)" in notes
    calibration = root / "sequences" / "07" / "calib.txt"
    calibration.write_text(calibration.read_text().replace("P2", "P9"))
    with pytest.raises(DataError, match="calib.txt: no row P2"):
        open_sequences(root)


def test_broken_tapvid3d_is_refused(tmp_path: Path) -> None:
    queries = np.array([[1.0, 1, 0], [1, 1, 99], [np.nan, 1, 0]])
    odd = disk.read_one(disk.tapvid3d(tmp_path / "odd.npz", queries_xyt=queries))
    assert odd.tracks is not None and odd.tracks.xyz.shape[1] == 1
    assert "2 of 3 tracks skipped" in " ".join(odd.notes)
    disk.tapvid3d(tmp_path / "b" / "bad.npz", tracks_XYZ=np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match=r"bad: refused, 8 images, tracks \(2, 3, 3\)"):
        open_sequences(tmp_path / "b")
    disk.tapvid3d(tmp_path / "c" / "bare.npz", visibility=None)
    with pytest.raises(DataError, match="bare: refused, no array visibility"):
        open_sequences(tmp_path / "c")
    disk.tapvid3d(tmp_path / "d" / "turned.npz", extrinsics_w2c=np.full((8, 4, 4), np.nan))
    with pytest.raises(DataError, match="turned: refused, extrinsics_w2c"):
        open_sequences(tmp_path / "d")


def test_damaged_archives_are_refused_by_name_and_others_are_read(tmp_path: Path) -> None:
    whole = disk.tapvid3d(tmp_path / "whole.npz").read_bytes()
    index = whole.rfind(b"PK\x01\x02")  # of what is inside, at the end
    (tmp_path / "overwritten.npz").write_bytes(whole[:index] + bytes(4) + whole[index + 4 :])
    (tmp_path / "cut.npz").write_bytes(whole[:-500])
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))  # of no layout: nothing is said of it
    told: list[str] = []
    assert [s.name for s in open_sequences(tmp_path, told.append)] == ["whole"]
    assert [line.split(",")[0] for line in told] == [
        "cut: refused", "empty: refused", "overwritten: refused"
    ]  # fmt: skip
    assert "cut.npz is cut off or no .npz file" in told[0]


def test_broken_frames_are_skipped_with_a_count(tmp_path: Path) -> None:
    folder = disk.seven_scenes(tmp_path / "kitchen")
    (folder / "frame-000002.depth.png").unlink()
    (folder / "frame-000003.color.png").unlink()
    np.savetxt(folder / "frame-000005.pose.txt", np.full((4, 4), np.nan))
    np.savetxt(folder / "frame-000007.pose.txt", np.diag([1.0, 1, -1, 1]))  # a mirror
    sequence = disk.read_one(folder)
    assert len(sequence) == 4
    assert "1 of 7 frames skipped: no depth (frame-000002)" in sequence.notes
    assert (
        "2 of 7 frames skipped: pose is no rigid motion or holds NaN (frame-000005, frame-000007)"
        in sequence.notes
    )
    assert "1 frame numbers are missing" in sequence.notes
    np.testing.assert_array_equal(sequence.images[2], disk.images()[4])
    np.testing.assert_allclose(sequence.world_from_camera[2], disk.poses()[4])  # type: ignore[index]


def test_mostly_broken_sequences_are_refused_by_name(tmp_path: Path) -> None:
    folder = disk.seven_scenes(tmp_path / "kitchen")
    for i in range(4):
        np.savetxt(folder / f"frame-00000{i}.pose.txt", np.zeros((4, 4)))
    disk.seven_scenes(tmp_path / "office")
    told: list[str] = []
    assert [s.name for s in open_sequences(tmp_path, told.append)] == ["office"]
    (line,) = told
    assert line.startswith("kitchen: refused, 4 of 8 frames skipped: pose is no rigid motion or holds NaN")
    with pytest.raises(DataError, match="kitchen: refused"):
        open_sequences(folder)


def test_broken_tum_and_euroc_are_skipped_with_a_count(tmp_path: Path) -> None:
    folder = disk.tum(tmp_path / "tum_fr3")
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    lines[4:7] = [line.split()[0] + " 0 0 0 nan nan nan nan" for line in lines[4:7]]
    (folder / "groundtruth.txt").write_text("\n".join(lines[:-3]))
    next(iter(sorted((folder / "depth").iterdir()))).unlink()
    notes = " ".join(disk.read_one(folder).notes)
    assert "no depth within" in notes and "holds NaN" in notes and "no pose within" in notes
    assert len(disk.read_one(folder)) == disk.COUNT - 3
    drone = disk.euroc(tmp_path / "V1")
    (drone / "mav0" / "cam0" / "data" / f"{disk.EUROC_START}.png").unlink()
    assert "1 of 8 frames skipped: image file missing" in " ".join(disk.read_one(drone).notes)


@pytest.mark.parametrize(("per_metre", "factor"), [(5000.0, "0.2"), (250.0, "4"), (1e-4, None)])
def test_wrong_depth_scale_is_refused(tmp_path: Path, per_metre: float, factor: str | None) -> None:
    folder = disk.seven_scenes(tmp_path / "kitchen", per_metre=per_metre)
    with pytest.raises(DataError, match="kitchen: refused, (wrong depth scale|no depth)") as told:
        open_sequences(folder)
    if factor is not None:
        assert float(str(told.value).split()[-1]) == pytest.approx(float(factor), rel=0.2)


def test_a_camera_at_rest_tells_no_scale(tmp_path: Path) -> None:
    folder = disk.seven_scenes(tmp_path / "kitchen")
    for path in folder.glob("frame-*"):
        path.write_bytes((folder / f"frame-000000.{path.name.split('.', 1)[1]}").read_bytes())
    assert len(disk.read_one(folder)) == disk.COUNT


def test_depth_of_8_bits_or_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = disk.seven_scenes(tmp_path / "kitchen")
    path = folder / "frame-000000.depth.png"
    cv2.imwrite(str(path), np.full(disk.SIZE, 9, np.uint8))
    with pytest.raises(DataError, match=r"frame-000000.depth.png: depth has to be one channel of 16 bits"):
        open_sequences(folder)
    for i in range(disk.COUNT):
        disk.write_depth(folder / f"frame-00000{i}.depth.png", np.ones((5, 6)), 1000)
    with pytest.raises(DataError, match=r"kitchen: refused, depth is \(5, 6\), images are \(48, 64\)"):
        open_sequences(folder)


def test_unknown_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sequence in the layout"):
        open_sequences(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_sequences(tmp_path / "nowhere")


def test_parts_of_different_length_are_refused() -> None:
    frames = Frames(range(3), lambda i: np.full((2, 2, 3), i, np.uint8))
    assert [int(f[0, 0, 0]) for f in frames[1:]] == [1, 2]
    with pytest.raises(DataError, match="desk: 2 poses for 3 images"):
        Sequence("desk", "", frames, np.arange(3), world_from_camera=np.zeros((2, 4, 4)))
    with pytest.raises(DataError, match="desk: stamps do not rise"):
        Sequence("desk", "", frames, np.array([0, 2, 2]))
