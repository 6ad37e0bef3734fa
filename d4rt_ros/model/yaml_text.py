"""YAML with numbers as ROS and people write them: to YAML 1.1, and so to PyYAML, 1e-4 is text."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Nothing but plain values, as `yaml.safe_load`."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, and ValueError for a date that no calendar has."""
    return yaml.load(text, _Loader)
