"""Every layout gives back the recording that was written in it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sequences_on_disk as disk
from PIL import Image

from d4rt_ros.evaluation.readers import open_sequences
from d4rt_ros.evaluation.readers.files import missing_numbers, nearest
from d4rt_ros.evaluation.sequence import DataError, Sequence


def _same_images(sequence: Sequence) -> None:
    assert len(sequence) == disk.COUNT
    for i, image in enumerate(disk.images()):
        assert sequence.images[i].dtype == np.uint8
        np.testing.assert_array_equal(sequence.images[i], image)


def _same_depth(sequence: Sequence, within: float) -> None:
    assert sequence.depth is not None
    for i, depth in enumerate(disk.depths()):
        assert sequence.depth[i].dtype == np.float32
        np.testing.assert_allclose(sequence.depth[i], depth, atol=within)


def _same_poses(sequence: Sequence) -> None:
    assert sequence.world_from_camera is not None
    np.testing.assert_allclose(sequence.world_from_camera, disk.poses(), atol=1e-6)


def test_seven_scenes(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.seven_scenes(tmp_path / "kitchen"))
    assert (sequence.name, sequence.layout, sequence.static) == ("kitchen", "7-Scenes", True)
    _same_images(sequence)
    _same_depth(sequence, 5.1e-4)
    _same_poses(sequence)
    np.testing.assert_allclose(sequence.intrinsics, disk.K)
    assert sequence.stamps[3] == 100_000_000


def test_tum(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.tum(tmp_path / "rgbd_dataset_freiburg3_desk"))
    _same_images(sequence)
    _same_depth(sequence, 1.1e-4)
    _same_poses(sequence)
    assert sequence.intrinsics is not None
    assert sequence.intrinsics[0, 2] == pytest.approx((320.1 + 0.5) / 10)  # images of 64x48, not 640x480
    assert sequence.intrinsics[1, 1] == pytest.approx(539.2 / 10)
    assert sequence.stamps[0] == 1305031452791720000
    assert sequence.stamps[1] == 1305031452825053000
    assert sequence.static
    assert not disk.read_one(disk.tum(tmp_path / "rgbd_dataset_freiburg3_walking_xyz")).static


def test_tum_s_truth_may_be_in_any_order(tmp_path: Path) -> None:
    truth = disk.tum(tmp_path / "room") / "groundtruth.txt"
    truth.write_text("\n".join(reversed(truth.read_text().splitlines())))
    _same_poses(disk.read_one(tmp_path))


def test_tum_fr1_is_undistorted(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.tum(tmp_path / "rgbd_dataset_freiburg1_xyz"))
    assert sequence.intrinsics is not None and sequence.depth is not None
    assert sequence.intrinsics[1, 2] == pytest.approx((255.3 + 0.5) / 10)
    assert "undistorted" in " ".join(sequence.notes)
    assert np.abs(sequence.images[0].astype(int) - disk.images()[0]).max() > 20
    inside = np.isfinite(sequence.depth[0])
    assert 0.1 < inside.mean() < 1  # nothing is seen beyond the border
    assert set(np.unique(sequence.depth[0][inside].round(3))) <= set(np.unique(disk.depths()[0].round(3)))


def test_tum_short_form(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.tum_short(tmp_path / "desk"))
    _same_images(sequence)
    _same_depth(sequence, 1.1e-4)
    _same_poses(sequence)
    np.testing.assert_allclose(sequence.intrinsics, disk.K)


def test_euroc(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.euroc(tmp_path / "V1_01_easy"))
    assert (sequence.name, sequence.layout, sequence.depth) == ("V1_01_easy", "EuRoC", None)
    _same_images(sequence)
    _same_poses(sequence)
    np.testing.assert_allclose(sequence.intrinsics, disk.K)
    assert sequence.stamps[0] == disk.EUROC_START
    assert disk.read_one(tmp_path / "V1_01_easy" / "mav0").name == "V1_01_easy"
    calibration = tmp_path / "V1_01_easy" / "mav0" / "cam0" / "sensor.yaml"
    calibration.write_text(
        "%YAML:1.0\n" + calibration.read_text()
    )  # as OpenCV wants it, and some copies have it
    np.testing.assert_allclose(disk.read_one(tmp_path / "V1_01_easy").intrinsics, disk.K)
    bent = disk.read_one(disk.euroc(tmp_path / "V2", distortion=(-0.3, 0.1, 0.0, 0.0)))
    plain = disk.images()[0]
    assert np.abs(bent.images[0].astype(int) - plain).max() > 5
    np.testing.assert_allclose(bent.images[0][25, 30], plain[25, 30], atol=1)  # the principal point stays


@pytest.mark.parametrize("velodyne", [False, True])
def test_kitti_odometry(tmp_path: Path, velodyne: bool) -> None:
    sequence = disk.read_one(disk.kitti(tmp_path / "dataset", velodyne=velodyne))
    assert (sequence.name, sequence.static) == ("07", False)
    _same_images(sequence)
    _same_poses(sequence)
    np.testing.assert_allclose(sequence.intrinsics, disk.K)
    assert sequence.stamps[2] == 207_400_000
    if not velodyne:
        assert sequence.depth is None
        return
    assert sequence.depth is not None
    drawn = sequence.depth[2]
    seen = np.isfinite(drawn)
    assert 0.3 < seen.mean() < 0.4
    np.testing.assert_allclose(drawn[seen], 10 * disk.depths()[2][seen], rtol=1e-4)


def test_kitti_without_poses(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.kitti(tmp_path / "dataset", with_poses=False))
    assert sequence.world_from_camera is None
    assert len(sequence) == disk.COUNT


def test_kitti_cut_outs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = disk.kitti(tmp_path / "dataset", velodyne=False) / "sequences" / "07"
    (tmp_path / "dataset" / "poses" / "07.txt").rename(folder / "poses.txt")
    for i, depth in enumerate(disk.depths()):
        disk.write_depth(folder / "depth_velo_u16_256" / f"{i + 40:06d}.png", 10 * depth, 256)
    for i in reversed(range(disk.COUNT)):
        (folder / "image_2" / f"{i:06d}.png").rename(folder / "image_2" / f"{i + 40:06d}.png")
    monkeypatch.chdir(folder)
    sequence = disk.read_one(Path("."))
    assert sequence.name == "07"
    _same_images(sequence)
    _same_poses(sequence)
    assert sequence.stamps[2] == 207_400_000
    assert sequence.depth is not None
    np.testing.assert_allclose(sequence.depth[3], 10 * disk.depths()[3], atol=2.1e-3)
    (folder / "times.txt").unlink()
    assert disk.read_one(folder).stamps[0] == 4_000_000_000


def test_kitti_drawn(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.kitti_drawn(tmp_path / "drive"))
    _same_images(sequence)
    assert sequence.depth is not None and sequence.world_from_camera is None
    assert np.isfinite(sequence.depth[0]).mean() == pytest.approx(1 / 7, abs=0.01)
    (tmp_path / "drive" / "camera-intrinsics.txt").unlink()
    with pytest.raises(DataError, match="drive: no camera-intrinsics.txt"):
        open_sequences(tmp_path / "drive")


def test_files_that_macos_hides_are_no_images(tmp_path: Path) -> None:
    folder = disk.kitti_drawn(tmp_path / "drive") / "image_02"
    for image in list(folder.iterdir()):
        (folder / f"._{image.name}").write_bytes(b"\0\5\26\7")
    _same_images(disk.read_one(tmp_path))


def test_tapvid3d(tmp_path: Path) -> None:
    sequence = disk.read_one(disk.tapvid3d(tmp_path / "adt" / "room_3.npz"))
    assert (sequence.name, len(sequence)) == ("room_3", disk.COUNT)
    assert np.abs(sequence.images[1].astype(int) - disk.images()[1]).mean() < 5
    _same_poses(sequence)
    np.testing.assert_allclose(sequence.intrinsics, disk.K)
    assert sequence.tracks is not None
    assert sequence.tracks.xyz.shape == (disk.COUNT, 3, 3)
    assert not sequence.tracks.visible[2, 2]
    first = sequence.tracks.xyz[0] @ disk.K.T
    np.testing.assert_allclose(sequence.tracks.query_uv * disk.SIZE[::-1], first[:, :2] / first[:, 2:])
    static = disk.read_one(disk.tapvid3d(tmp_path / "pstudio.npz", extrinsics_w2c=None))
    assert static.world_from_camera is None


def test_a_tag_that_turns_a_frame_is_left_alone(tmp_path: Path) -> None:
    jpeg, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6  # orientation: to be turned right
    Image.fromarray(disk.images()[0]).save(jpeg, "JPEG", exif=turned)
    path = disk.tapvid3d(tmp_path / "x.npz", images_jpeg_bytes=np.array([jpeg.getvalue()] * disk.COUNT))
    assert disk.read_one(path).images[0].shape == (*disk.SIZE, 3)


def test_names_without_leading_zeros_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = disk.seven_scenes(tmp_path / "kitchen", count=12)
    for path in folder.glob("frame-*"):
        number, rest = path.name[len("frame-") :].split(".", 1)
        path.rename(folder / f"frame-{int(number)}.{rest}")
    first = next(folder.glob("frame-2.color.*"))
    (folder / "frame-2.color.jpg").write_bytes(first.read_bytes())  # twice there, read once
    (folder / "frame-4.pose.txt").write_text("")
    (folder / "camera-intrinsics.txt").unlink()
    sequence = disk.read_one(tmp_path)
    assert len(sequence.images) == 11
    assert (np.diff(sequence.stamps) > 0).all()
    assert any("pose is unreadable" in note for note in sequence.notes)
    assert any("of 640x480 assumed" in note for note in sequence.notes)
    height, width = sequence.images[0].shape[:2]
    assert sequence.intrinsics is not None
    np.testing.assert_allclose(sequence.intrinsics[:2, 2], [320.5 * width / 640, 240.5 * height / 480])


def test_stamps_with_a_point_or_a_mark_before_them_are_read(tmp_path: Path) -> None:
    folder = disk.euroc(tmp_path / "room")
    expected = disk.read_one(tmp_path)
    truth = next(folder.rglob("state_groundtruth_estimate0/data.csv"))
    lines = truth.read_text().splitlines()
    rows = [line if line.startswith("#") else line.replace(",", ".0,", 1) for line in lines]
    truth.write_text("\n".join((rows[0], *reversed(rows[1:]))))
    images = next(folder.rglob("cam0/data.csv"))
    images.write_text("\ufeff" + images.read_text(), "utf-8")
    found = disk.read_one(tmp_path)
    assert np.array_equal(found.stamps, expected.stamps)
    assert found.world_from_camera is not None
    assert expected.world_from_camera is not None
    np.testing.assert_allclose(found.world_from_camera, expected.world_from_camera)
    truth.write_text("\n".join((rows[0], "inf" + rows[1][rows[1].index(",") :], *rows[2:])))
    refusals: list[str] = []
    with pytest.raises(DataError, match="a stamp is no number of nanoseconds"):
        open_sequences(tmp_path, refusals.append)


@pytest.mark.parametrize("write", [disk.seven_scenes, disk.tum, disk.tum_short, disk.euroc, disk.kitti])
def test_a_mark_before_a_text_is_no_part_of_it(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path / "scene")
    expected = disk.read_one(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".txt", ".csv", ".json", ".yaml"):
            path.write_text(path.read_text(), "utf-8-sig")
    found = disk.read_one(tmp_path)
    assert found.notes == expected.notes
    assert np.array_equal(found.stamps, expected.stamps)
    assert found.world_from_camera is not None and expected.world_from_camera is not None
    assert np.array_equal(found.world_from_camera, expected.world_from_camera)


def test_many_sequences_get_different_names(tmp_path: Path) -> None:
    disk.seven_scenes(tmp_path / "chess" / "seq-01")
    disk.seven_scenes(tmp_path / "fire" / "seq-01")
    disk.tapvid3d(tmp_path / "adt" / "a.npz")
    assert [s.name for s in open_sequences(tmp_path)] == ["a", "chess/seq-01", "fire/seq-01"]


def test_nearest_times_by_hand() -> None:
    stamps = np.array([1.0, 2.0, 4.0])
    found = nearest(stamps, np.array([0.9, 1.4, 1.6, 3.5, 4.6, 3.0]), 0.5)
    np.testing.assert_array_equal(found, [0, 0, 1, 2, -1, -1])
    np.testing.assert_array_equal(nearest(np.array([3.0]), np.array([3.2, 9.0]), 0.5), [0, -1])
    np.testing.assert_array_equal(nearest(np.array([]), np.array([3.2]), 0.5), [-1])
    assert missing_numbers([0, 1, 2, 5, 6]) == 2
    assert missing_numbers([0, 5, 10, 20]) == 1
