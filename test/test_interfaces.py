"""Messages, services and the action, as built."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for kind in ("msg", "srv", "action") for path in (ROOT / kind).iterdir())
HEAD = {
    "success": "boolean",
    "message": "string",
    "window_start": "builtin_interfaces/Time",
    "window_end": "builtin_interfaces/Time",
}


def generated(path):
    return getattr(importlib.import_module(f"d4rt_ros.{path.parent.name}"), path.stem)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_built(path):
    built = generated(path)
    parts = {"msg": [built], "srv": ["Request", "Response"], "action": ["Goal", "Result", "Feedback"]}[
        path.parent.name
    ]
    for part in parts:
        fields = (getattr(built, part) if isinstance(part, str) else part).get_fields_and_field_types()
        assert fields
        for field in fields:  # the built package is not older than the file
            assert f" {field}\n" in path.read_text() + "\n", f"{field} is built, but no longer in {path.name}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix != ".msg"], ids=lambda path: path.stem
)
def test_every_answer_begins_with_whether_and_from_which_window(path):
    built = generated(path)
    answer = built.Response if path.suffix == ".srv" else built.Result
    assert list(answer.get_fields_and_field_types().items())[:4] == list(HEAD.items())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_field_is_explained(path):
    """A comment stands above each field, or above the group that it is in."""
    explained = False
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif line in ("", "---"):
            explained = False
        else:
            assert explained, line


def test_interfaces_use_flat_arrays():
    """Arrays that hold one value a point are of numbers: messages in arrays cost a microsecond each."""
    allowed = {"builtin_interfaces/Time", "geometry_msgs/PoseStamped"}  # one a frame
    for path in FILES:
        for line in path.read_text().splitlines():
            kind = line.split(" ")[0]
            if kind.endswith("[]") and "/" in kind:
                assert kind[:-2] in allowed, f"{path.name}: {line}"
