"""tools/setup: what it decides. That it works at all, every run of these tests shows."""

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "setup"


@pytest.fixture
def setup(monkeypatch, tmp_path):
    """The script as a module, in a repository of its own and a plain shell."""
    loader = SourceFileLoader("setup_script", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("setup_script", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "SITE", tmp_path / ".venv/site")
    for name in ("AMENT_PREFIX_PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"):
        monkeypatch.delenv(name, raising=False)
    return module


def source_ros(monkeypatch, prefix):
    (prefix / "share/rclpy").mkdir(parents=True)
    (prefix / "share/rclpy/package.xml").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{prefix}")


def test_what_is_missing_is_named_with_its_package(setup, monkeypatch, tmp_path):
    assert setup.missing_from_system() == []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(tmp_path))
    missing = setup.missing_from_system()
    assert [line[line.index("(package ") :] for line in missing] == [
        "(package python3-dev)",
        "(package g++)",
        "(package cmake)",
    ]


def test_an_old_cmake_is_missing(setup, monkeypatch, tmp_path):
    for name, version in (("cmake", "cmake version 3.16.3"), ("g++", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{version}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup.missing_from_system() == ["cmake 3.20 or newer not found (package cmake)"]


def test_a_sourced_ros_is_used(setup, monkeypatch, tmp_path):
    assert setup.sourced_ros() is None
    source_ros(monkeypatch, tmp_path / "opt")
    assert setup.sourced_ros() == str(tmp_path / "opt")


def test_our_own_environment_is_no_sourced_ros(setup, monkeypatch):
    source_ros(monkeypatch, setup.VENV)
    assert setup.sourced_ros() is None


def test_python_paths_of_the_shell_stay_out_unless_ros_is_sourced(setup, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "/old")
    assert "PYTHONPATH" not in setup.child_environment()
    assert setup.child_environment()["CMAKE_PREFIX_PATH"] == str(setup.VENV)
    source_ros(monkeypatch, tmp_path / "opt")
    env = setup.child_environment()
    assert env["PYTHONPATH"] == "/old"
    assert env["AMENT_PREFIX_PATH"].split(os.pathsep) == [str(setup.VENV), "/nowhere", str(tmp_path / "opt")]


def test_digest_feels_content_names_and_words(setup, tmp_path):
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg/A.msg").write_text("int8 a")
    before = setup.digest([tmp_path / "msg"], 1)
    assert setup.digest([tmp_path / "msg"], 1) == before != setup.digest([tmp_path / "msg"], 2)
    (tmp_path / "msg/A.msg").write_text("int8 b")
    changed = setup.digest([tmp_path / "msg"], 1)
    (tmp_path / "msg/A.msg").rename(tmp_path / "msg/B.msg")
    assert len({before, changed, setup.digest([tmp_path / "msg"], 1)}) == 3


def test_paths_of_the_wheels_builder_are_mended(setup):
    folder = setup.VENV / "share/std_msgs/cmake"
    folder.mkdir(parents=True)
    (folder / "export.cmake").write_text(
        '"/opt/python/cp312-cp312/include/python3.12;/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy"'
    )
    setup.mend_wheels()
    include = setup.sysconfig.get_path("include")
    assert (folder / "export.cmake").read_text() == f'"{include};{setup.SITE}/numpy"'


def test_links_replace_copies_and_older_links(setup, tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    place = tmp_path / "place"
    place.mkdir()
    (place / "copy").touch()
    setup.link(tmp_path / "old", place)
    setup.link(tmp_path / "new", place)
    assert (place / "file").read_text() == "new"
    assert (tmp_path / "old/file").read_text() == "old"


def test_these_tests_run_beside_the_plugins_of_a_ros_installation(tmp_path):
    """Humble to Kilted bring hooks whose arguments pytest 9 has no more; pytest loads what it finds."""
    (tmp_path / "hooks_of_ros.py").write_text("def pytest_pycollect_makemodule(path, parent):\n    pass\n")
    for name in ("launch_testing", "launch_ros"):
        info = tmp_path / f"{name}-3.4.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.4\n")
        (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = hooks_of_ros\n")
    places = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", __file__],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_command_may_start_processes(setup, tmp_path):
    """A process that is spawned imports the main module once more, and must not run it."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    setup.write_entry_points()
    (tmp_path / "d4rt_ros").mkdir()
    (tmp_path / "d4rt_ros/__init__.py").touch()
    (tmp_path / "d4rt_ros/cli.py").write_text(
        "import multiprocessing\n\n\ndef main():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=print, args=('made',))\n"
        "    process.start()\n    process.join()\n    return process.exitcode\n"
    )
    done = subprocess.run(
        [tmp_path / ".venv/bin/d4rt"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, b"made\n"), done.stderr
