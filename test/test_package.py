"""The package as a whole: what gets installed, and what may import what."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

# Raises on ROS and everything generated from interfaces; the node must feel that, nothing else may.
BLOCKED = """
import importlib, pkgutil, sys

ROS = ("rclpy", "cv_bridge", "sensor_msgs_py", "tf2_ros", "tf2_py", "tf_transformations", "rosidl_parser",
       "diagnostic_updater", "builtin_interfaces", "ament_index_python", "launch", "launch_ros")
OURS = ("d4rt_ros.msg", "d4rt_ros.srv", "d4rt_ros.action", "d4rt_ros.d4rt_ros_s", "d4rt_ros.libd4rt_ros")

class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in ROS or top.endswith(("_msgs", "_srvs")) or name.startswith(OURS):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Block())
import d4rt_ros

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.startswith(("d4rt_ros.node", *OURS)):
            print(module.name)
            found = importlib.import_module(module.name)
            if module.ispkg:
                walk(found)

walk(d4rt_ros)
try:
    import d4rt_ros.node.node
except ModuleNotFoundError as error:
    print(error)
"""


def run_python(code, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_everything_but_the_node_imports_without_ros():
    done = run_python(BLOCKED, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    *modules, node = done.stdout.splitlines()
    assert node.startswith("blocked: "), node
    rooms = {name.split(".")[1] for name in modules}
    assert {"model", "tasks", "stream", "training", "evaluation", "bag", "cli"} <= rooms
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "d4rt_ros").rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in files if path.parts[1] != "node"}
    assert names - {"d4rt_ros"} <= set(modules)


def test_the_installed_package_keeps_its_own_init(tmp_path):
    code = "import d4rt_ros, d4rt_ros.msg, d4rt_ros.camera; print(d4rt_ros.__doc__, d4rt_ros.__version__)"
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("D4RT for ROS 2")


def test_the_source_tree_finds_the_generated_interfaces():
    done = run_python("import d4rt_ros; import d4rt_ros.srv; print(d4rt_ros.__file__)", ROOT)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "d4rt_ros" / "__init__.py"


def test_one_version_everywhere():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    setup = re.search(r'version="(.+?)"', (ROOT / "setup.py").read_text()).group(1)
    module = re.search(r'__version__ = "(.+?)"', (ROOT / "d4rt_ros/__init__.py").read_text()).group(1)
    changes = re.search(r"^(\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE).group(1)
    assert manifest == setup == module == changes


def test_no_file_is_left_behind_by_the_install_patterns():
    tracked = [
        path for path in (ROOT / "d4rt_ros").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    kinds = {path.suffix if path.suffix != ".typed" else path.name for path in tracked} - {".md"}
    cmake = set(re.findall(r'PATTERN "\*?([^"]+)"', (ROOT / "CMakeLists.txt").read_text())) - {"__pycache__"}
    assert kinds <= cmake
    found = re.search(r"package_data=\{\"\": (\[.*?\])", (ROOT / "setup.py").read_text()).group(1)
    patterns = ["*.py", *ast.literal_eval(found)]
    for path in tracked:
        if path.suffix != ".md":
            package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
            assert any(path.relative_to(package).match(pattern) for pattern in patterns), path


def test_every_message_package_in_use_is_declared():
    declared = {
        node.text for node in ElementTree.parse(ROOT / "package.xml").getroot() if node.tag.endswith("depend")
    }
    used = set()
    for path in (ROOT / "d4rt_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used |= {name.split(".")[0] for name in names}
    ros = {name for name in used if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    ros |= used & {
        "rclpy",
        "cv_bridge",
        "sensor_msgs_py",
        "tf2_ros",
        "tf_transformations",
        "diagnostic_updater",
    }
    assert "rclpy" in ros
    assert ros <= declared, ros - declared


def test_launch_arguments_are_parameters_of_the_node():
    tree = ast.parse((ROOT / "launch/d4rt.launch.py").read_text())
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ("ARGUMENTS", "PARAMETERS"):
            values[node.targets[0].id] = node.value
    parameters = ast.literal_eval(values["PARAMETERS"])
    arguments = {entry.elts[0].value for entry in values["ARGUMENTS"].elts}
    config = yaml.safe_load((ROOT / "config/d4rt.yaml").read_text())["/**"]["ros__parameters"]
    assert set(parameters) <= arguments
    assert set(parameters.values()) <= set(config)
