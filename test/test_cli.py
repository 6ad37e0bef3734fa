"""The `d4rt` command: subcommands, exit codes, parameters by file and option."""

from __future__ import annotations

import argparse
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from bag_samples import make_bag

from d4rt_ros import cli
from d4rt_ros.bag.command import fingerprint
from d4rt_ros.bag.options import add_shared_arguments, read_parameters
from d4rt_ros.bag.recording import Recording
from d4rt_ros.bag.video import FIRST_STAMP, VideoFrames
from d4rt_ros.model import D4RT, ModelConfig, save_weights
from d4rt_ros.node.parameters import defaults


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_shared_arguments(parser)
    return parser.parse_args(["out", *arguments])


def test_help_loads_no_network() -> None:
    code = (
        "import sys; from d4rt_ros import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'rosbags', 'cv2', 'numpy'} & set(sys.modules), 'slow'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: d4rt {name}")


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["bag"], ["bag", "in"], ["bag", "in", "out", "--storage", "tape"]]
)
def test_wrong_arguments_end_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


def test_wrong_input_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    bag = str(make_bag(tmp_path / "bag", frames=1))
    out = str(tmp_path / "out")
    for arguments, text in (
        (["bag", missing, out], f"{missing} does not exist"),
        (["video", missing, out], f"{missing} does not exist"),
        (["video", str(tmp_path / "text.mp4"), out], "no video that OpenCV can read"),
        (["video", str(tmp_path / "empty"), out], "holds no images"),
        (["video", bag, out, "--set", "scale.source=depth"], "scale.source is 'depth', but a video has"),
        (["video", bag, out, "--set", "frames.base=base_link"], "frames.base is 'base_link', but a video"),
        (["bag", bag, out, "--image", "/none"], "no topic /none"),
        (["bag", bag, out, "--set", "window.length=7"], "window.length is 7; it must be even"),
        (["bag", bag, out, "--set", "scale.source=odometry"], "no /tf"),
        (["bag", bag, out, "--depth", "/depth"], "is for --set scale.source=depth, not 'none'"),
        (["bag", bag, out, "--checkpoint", missing], missing),
        (["bag", bag, out, "--device", "abacus"], "'abacus' is none of auto, cpu, cuda:N"),
        (["bag", bag, str(tmp_path / "out.db3"), "--storage", "mcap"], "does not fit the name out.db3"),
    ):
        assert cli.main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1, error
    assert not list(tmp_path.glob("out*"))


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    part = types.ModuleType("d4rt_ros.stops")
    part.add_arguments, part.main = lambda parser: None, stop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "d4rt_ros.stops", part)
    monkeypatch.setitem(cli.COMMANDS, "stops", ("d4rt_ros.stops", "stops"))
    assert cli.main(["stops"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_traceback_is_shown_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--traceback", "bag", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_parameters_come_from_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    window.length: 6\n    map: {voxel_size: 1}\n"
        "    window.max_gap: 25e-1\n"  # as ROS reads it
    )
    values = read_parameters(
        parsed(
            "--params", str(file), "--set", "window.length=4", "--set", "scale.value=2e1", "--device", "cpu"
        )
    )
    assert (
        values["window.length"] == 4 and values["map.voxel_size"] == 1.0 and values["model.device"] == "cpu"
    )
    assert values["window.max_gap"] == 2.5 and values["scale.value"] == 20.0
    assert values["tf.mode"] == "world_to_camera"
    changed = {
        "window.length", "window.max_gap", "map.voxel_size", "model.device", "scale.value", "tf.mode"
    }  # fmt: skip
    assert {name for name, value in defaults().items() if values[name] != value} == changed


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--set", "window.lenght=4"), "no parameter is called 'window.lenght'"),
        (("--set", "window.length"), "must be NAME=VALUE"),
        (("--set", "window.length=four"), "window.length is 'four'; it must be a whole number"),
        (("--set", "frames.world=7"), ""),
        (("--set", "window.length=[4"), r"--set window.length=\[4: the value is no YAML"),
        (("--set", "window.length=2026-99-99"), "--set .*: the value is no YAML"),
        (("--params", "{bad}"), "is no YAML"),
        (("--params", "{utf16}"), "utf16 is no YAML"),
        (("--params", "{empty}"), "holds no ros__parameters"),
    ],
)
def test_wrong_parameters_are_named(tmp_path: Path, options: tuple[str, ...], text: str) -> None:
    (tmp_path / "bad").write_text("a: [")
    (tmp_path / "empty").write_text("a: 1\n")
    (tmp_path / "utf16").write_text("a: 1\n", "utf-16")
    files = {name: tmp_path / name for name in ("bad", "empty", "utf16")}
    options = tuple(option.format(**files) for option in options)
    if not text:
        assert read_parameters(parsed(*options))["frames.world"] == "7"
        return
    with pytest.raises(ValueError, match=text):
        read_parameters(parsed(*options))


def test_a_folder_of_images_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((4, 6, 3), (0, 0, number), np.uint8))
    (tmp_path / "frame3.png").write_text("broken")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._frame2.png").write_text("beside it by macOS")
    source = VideoFrames(tmp_path, fps=10.0, frame_id="cam")
    arrivals = list(source.frames())
    assert [int(arrival.frame.image[0, 0, 0]) for arrival in arrivals] == [1, 2, 10]  # red is first
    assert [arrival.frame.stamp - FIRST_STAMP for arrival in arrivals] == [0, 100_000_000, 300_000_000]
    assert source.total == 4 and len(source.unreadable) == 1 and arrivals[0].frame.frame_id == "cam"
    with pytest.raises(ValueError, match="frames per second are -1"):
        VideoFrames(tmp_path, fps=-1.0)


def test_a_video_is_read_with_its_own_rate(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (32, 24))
    for number in range(5):
        writer.write(np.full((24, 32, 3), 40 * number, np.uint8))
    writer.release()
    source = VideoFrames(path)
    arrivals = list(source.frames())
    assert source.total == 5 and not source.damage
    assert [arrival.frame.stamp for arrival in arrivals] == [FIRST_STAMP + 50_000_000 * n for n in range(5)]
    assert abs(float(arrivals[3].frame.image.mean()) - 120) < 4


def test_a_bag_goes_through_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out.mcap"
    small = {
        f"{part}_{what}": n
        for part in ("vit", "dec")
        for what, n in (("width", 32), ("heads", 2), ("depth", 1))
    }
    save_weights(D4RT(ModelConfig(frames=4, image_size=(16, 16), **small)), weights)
    bag = make_bag(tmp_path / "bag", frames=8)
    settings = (
        "--set",
        "model.precision=float32",
        "--set",
        "tracks.grid=2",
        "--set",
        "pose.grid=4",
        "--topics",
        "depth/image",
        "tracks",
    )
    assert cli.main(["bag", str(bag), str(out), "--checkpoint", str(weights), *settings]) == 0
    assert "used" in capsys.readouterr().out
    with Recording(out) as recording:
        assert recording.count("/d4rt/depth/image") == recording.count("/d4rt/tracks") == 3


def test_fingerprint_tells_a_changed_input(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", frames=1)
    before = fingerprint(bag)
    assert fingerprint(bag) == before
    with (bag / "bag.mcap").open("ab") as stream:
        stream.write(b"x")
    assert fingerprint(bag) != before


def test_a_run_whose_output_lies_in_its_input_goes_on(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    before = fingerprint(tmp_path)
    (tmp_path / "out.part").mkdir()
    assert fingerprint(tmp_path) == before
