"""Settings refused by name: fields of a dataclass against their annotations, numbers against ranges."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, NamedTuple, get_type_hints


class Range(NamedTuple):
    """Numbers from `low` to `high`, both allowed, and how an error tells of them."""

    low: float
    high: float
    words: str


ABOVE_0 = Range(math.nextafter(0.0, 1.0), math.inf, "above 0")
NOT_NEGATIVE = Range(0, math.inf, "not below 0")
SHARE = Range(0, 1, "in 0..1")
_ANY = Range(-math.inf, math.inf, "")
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}


def at_least(low: int) -> Range:
    """Numbers from `low` on."""
    return Range(low, math.inf, f"not below {low}")


def check_fields(settings: Any, where: str, **ranges: Range) -> None:
    """Refuse a dataclass with a field that is not of its annotated type, or a number outside of its range.

    where: what names of fields begin with in the error. What is neither bool, int, float nor str is left to
    the caller. Raises ValueError naming the field, its value and what is allowed.
    """
    hints = get_type_hints(type(settings))
    for name in (field.name for field in fields(settings) if hints[field.name] in _KINDS):
        kind, value, allowed = hints[name], getattr(settings, name), ranges.get(name, _ANY)
        fits = isinstance(value, (int, float) if kind is float else kind)
        fits = fits and isinstance(value, bool) == (kind is bool)  # Python's bool is an int
        if fits and kind in (int, float):
            fits = _finite(value) and allowed.low <= value <= allowed.high
        if not fits:
            raise ValueError(f"{where}{name} is {value!r}, must be {_KINDS[kind]} {allowed.words}".rstrip())


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
