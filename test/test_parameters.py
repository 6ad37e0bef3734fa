"""The parameter table, and the files that are generated from it and from the interface."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from d4rt_ros.node import interface
from d4rt_ros.node.parameters import BY_NAME, TABLE, defaults, refusal, stream_settings, yaml_text
from d4rt_ros.outputs import TOPICS
from d4rt_ros.stream import StreamSettings

ROOT = Path(__file__).resolve().parent.parent


def test_defaults_are_allowed_and_make_settings_for_any_network():
    assert refusal(defaults()) == ""
    settings = stream_settings(defaults(), 8)
    assert (settings.window_length, settings.window_stride) == (8, 4)
    assert stream_settings(defaults(), 48).window_length == 48


def test_every_setting_of_the_stream_is_a_parameter():
    assert {one.setting for one in TABLE} - {""} == set(StreamSettings.__dataclass_fields__)
    assert len(BY_NAME) == len(TABLE)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("window.length", 7, "window.length is 7; it must be even, from 2 to 256"),
        (
            "window.length",
            300,
            "window.length is 300; it must be 2 to 256, or 0: as many as the network was made for",
        ),
        ("window.length", 8.0, "window.length is 8.0; it must be a whole number"),
        ("window.max_gap", 0.0, "window.max_gap is 0.0; it must be 0.001 to 3600"),
        ("window.max_gap", float("nan"), "window.max_gap is nan; it must be 0.001 to 3600"),
        ("points.min_confidence", -0.1, "points.min_confidence is -0.1; it must be 0 to 1"),
        ("points.min_confidence", 1, "points.min_confidence is 1; it must be a number (with a point)"),
        (
            "tf.mode",
            "map",
            "tf.mode is 'map'; it must be one of 'none', 'world_to_camera', 'odom_to_base', 'map_to_odom'",
        ),
        ("tf.mode", "odom_to_base", "tf.mode is 'odom_to_base', which needs frames.base; it is empty"),
        ("model.precision", "int8", "model.precision is 'int8'; it must be one of 'auto', 'float32'"),
        ("autostart", 1, "autostart is 1; it must be true or false"),
        ("frames.world", "", "frames.world is ''; it must name a frame"),
        ("frames.odom", "", "frames.odom is ''; it must name a frame"),
        ("frames.odom", "/odom", "frames.odom is '/odom'; tf2 takes no name that begins with a slash"),
        ("frames.base", "world", "frames.base is 'world', which frames.world is, too"),
        ("frames.base", "odom", "frames.base is 'odom', which frames.odom is, too"),
    ],
)
def test_wrong_values_are_refused_with_field_value_and_range(name, value, words):
    assert words in refusal({**defaults(), name: value})


def test_values_are_checked_together():
    edge = {"frames.base": "base_link", "frames.world": "odom"}
    assert refusal({**defaults(), **edge, "tf.mode": "odom_to_base"}) == ""
    words = "tf.mode is 'map_to_odom', but frames.world and frames.odom both are 'odom'"
    assert refusal({**defaults(), **edge, "tf.mode": "map_to_odom"}) == words
    values = {**defaults(), "window.length": 8, "window.stride": 10}
    assert refusal(values) == "window.stride is 10; it must be at most window.length, which is 8"
    with pytest.raises(
        ValueError, match="window.length is 12, but the network of model.checkpoint 'builtin' takes at most 8"
    ):
        stream_settings({**defaults(), "window.length": 12}, 8)


@pytest.mark.parametrize("parameter", TABLE, ids=lambda one: one.name)
def test_every_parameter_is_explained(parameter):
    assert len(parameter.description) > 15 and parameter.description.endswith(".")
    assert parameter.change in ("inactive", "unconfigured", "start")


def test_the_yaml_file_is_current_and_holds_every_parameter():
    text = (ROOT / "config" / "d4rt.yaml").read_text()
    assert text == yaml_text(), "run: python tools/interface_docs.py"
    assert yaml.safe_load(text)["/**"]["ros__parameters"] == defaults()


def generated():
    """tools/interface_docs.py as a module."""
    spec = importlib.util.spec_from_file_location("interface_docs", ROOT / "tools" / "interface_docs.py")
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    return docs


def test_the_generated_files_are_current():
    for path, text in generated().files().items():
        assert path.read_text() == text, f"{path.name} is old; run: python tools/interface_docs.py"


def test_the_interface_page_names_everything():
    text = (ROOT / "docs" / "ROS.md").read_text()
    for name in [
        *BY_NAME,
        *(f"~/{one}" for one in (*interface.SERVICES, *interface.ACTIONS, *interface.OUTPUTS)),
    ]:
        assert f"`{name}`" in text or name == "~//tf"


def test_the_security_policy_allows_the_interface_and_no_wildcards():
    profile = ElementTree.parse(ROOT / "config" / "d4rt_policy.xml").find(".//profile")
    allowed = {(group.tag, *group.attrib): {one.text for one in group} for group in profile}
    assert {f"~{name}" for name in interface.SERVICES} < allowed["services", "reply"]
    assert "~get_type_description" in allowed["services", "reply"]
    assert {"image", "camera_info", "/tf"} < allowed["topics", "subscribe"]
    assert {"~depth/image", "/tf", "/diagnostics"} < allowed["topics", "publish"]
    assert allowed["actions", "execute"] == {"~track_all"}
    assert not any("*" in name for names in allowed.values() for name in names)


def test_the_interface_tables_name_what_exists():
    assert set(interface.OUTPUTS) == set(TOPICS)
    for kind in ("srv", "action"):
        entries = interface.SERVICES if kind == "srv" else interface.ACTIONS
        ours = {name.rsplit("/", 1)[1] for name, _ in entries.values() if name.startswith("d4rt_ros/")}
        assert ours == {path.stem for path in (ROOT / kind).glob(f"*.{kind}")}
    assert all(re.fullmatch(r"\w+/(srv|action)/\w+", name) for name, _ in interface.SERVICES.values())
