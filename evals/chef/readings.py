"""Temperatures, lengths and times as they are written in a sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Quantity = Literal["temperature", "length", "time"]

_NUMBER = r"(?:(?<![\w.,])|(?<=[(~≈]))(?P<{0}>(?:minus |[-−])?\d+(?:[.,]\d+)?(?:/\d+)?)"
_JOIN = r"\s*(?:-|–|—|−|to|and|or|up to)\s*"
_DEGREE = r"\s*(?:°|degrees?\b|deg\b\.?)\s*"
_SCALE = r"(?:celsius|centigrade|fahrenheit|[cf])\b"
# a letter alone: "2 c stock" is cups, so a small one needs a number of two digits before the point
_TWO_DIGITS = "|".join(
    rf"(?<=\d\d{part}{space}){no}"
    for space in ("", r"\s")
    for part, no in (("", rf"(?<![.,]\d\d{space})"), (r"[.,]\d", ""))
)
_ALONE = rf"\s?(?:(?<=\d|\s)(?-i:[CF])|(?:{_TWO_DIGITS})[cf])\b"
_TEMPERATURE = rf"(?:{_DEGREE}{_SCALE}|{_ALONE})"
_UNITS = {
    "temperature": _TEMPERATURE,
    "length": r"\s*(?:mm|millimet(?:re|er)s?|cm|centimet(?:re|er)s?|inch(?:es)?)\b",
    "time": r"\s*(?:min(?:ute)?s?|h(?:ou)?rs?|h)\b",
}
_FIRST_UNIT = {
    "temperature": rf"(?P<first>{_TEMPERATURE}|{_DEGREE})?",
    "length": rf"(?P<first>{_UNITS['length']})?",
    "time": rf"(?P<first>{_UNITS['time']})?",
}
_PATTERNS = {
    kind: re.compile(
        rf"(?:{_NUMBER.format('low')}{_FIRST_UNIT[kind]}{_JOIN})?"
        rf"(?P<high>(?:minus |(?<![\w.,])[-−])?\d+(?:[.,]\d+)?)(?P<unit>{unit})",
        re.IGNORECASE,
    )
    for kind, unit in _UNITS.items()
}
_FACTORS = {"cm": 10.0, "centim": 10.0, "inch": 25.4, "h": 60.0}
"""To millimetres and minutes."""


@dataclass(frozen=True)
class Reading:
    """A quantity in a sentence, a range where one is given."""

    kind: Quantity
    low: float
    high: float
    """Degrees Celsius, millimetres or minutes."""
    tolerance: float
    """For rounding, in the unit of ``low``: Fahrenheit is rounded in another scale."""
    start: int
    """Character position."""
    text: str


def readings(sentence: str, kind: Quantity) -> list[Reading]:
    """Readings of one kind in a plain sentence; numbers without a unit are none."""
    found = []
    for match in _PATTERNS[kind].finditer(sentence):
        unit = match["unit"]
        high = _value(match["high"], unit, kind)
        low = high if match["low"] is None else _value(match["low"], match["first"] or unit, kind)
        tolerance = 1.5 if kind == "temperature" and _scale(unit) == "f" else 0.5
        found.append(
            Reading(kind, min(low, high), max(low, high), tolerance, match.start(), match[0])
        )
    return found


def _value(number: str, unit: str, kind: Quantity) -> float:
    plain = number.lower().replace("minus ", "-").replace("−", "-").replace(",", ".")
    top, _, bottom = plain.partition("/")
    value = float(top) / (float(bottom) if bottom and float(bottom) else 1.0)
    if kind == "temperature":
        return (value - 32) / 1.8 if _scale(unit) == "f" else value
    short = unit.strip().lower()
    factor = next((by for name, by in _FACTORS.items() if short.startswith(name)), 1.0)
    return value * factor


def _scale(unit: str) -> str:
    letters = re.sub(r"degrees?|deg|[^a-z]", "", unit.lower())
    return letters[:1]
