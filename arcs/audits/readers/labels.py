"""From raw values of a column to labels of one kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from arcs.audits.results import Instrument, LabelKind, LabelValue
from models.errors import UserError

NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)
WORDS = {"true": True, "false": False}
PASS_WORDS = ({"yes", "no"}, {"pass", "fail"}, {"passed", "failed"}, {"correct", "incorrect"})
"""A column of nothing but one of these pairs is PASS."""
GOOD = frozenset({"yes", "pass", "passed", "correct"})


def clean(value: object) -> LabelValue | None:
    """Return one label value; None, NaN and blank text are missing.

    Text that is a number, "true" or "false" becomes what it says: a CSV file has only text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (str, int, float)):
        # A whole number by way of text too: it may be too large for float(), then infinite.
        return _from_text(str(value).strip())
    raise UserError(f"a label is a {type(value).__name__}, and a text or number is needed")


def _from_text(text: str) -> LabelValue | None:
    if not text or text.lower() == "nan":
        return None
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    return float(text) if NUMBER.fullmatch(text) else text


def infer(values: Sequence[object]) -> tuple[LabelKind, tuple[LabelValue | None, ...]]:
    """Kind of a column and its values in it, [n].

    Only 0, 1, true and false, or both of a pair such as yes and no: PASS. Only
    numbers: SCORE (nothing shows a share to be one).
    Anything else: CLASS.
    """
    cleaned = [clean(value) for value in values]
    present = [value for value in cleaned if value is not None]
    said = {str(value).lower() for value in present}
    if len(said) == 2 and any(said == pair for pair in PASS_WORDS):
        return LabelKind.PASS, tuple(None if v is None else str(v).lower() in GOOD for v in cleaned)
    if not present or any(isinstance(value, str) for value in present):
        return LabelKind.CLASS, tuple(
            _class_name(v, c) for v, c in zip(values, cleaned, strict=True)
        )
    if all(value in (0, 1) for value in present):
        return LabelKind.PASS, tuple(None if v is None else bool(v) for v in cleaned)
    return LabelKind.SCORE, tuple(None if v is None else float(v) for v in cleaned)


def _class_name(value: object, cleaned: LabelValue | None) -> str | None:
    """Return the class as the source spells it."""
    if cleaned is None:
        return None
    return value.strip() if isinstance(value, str) else str(value)


def convert(values: Sequence[object], kind: LabelKind, where: str) -> tuple[LabelValue | None, ...]:
    """Values of a column as labels of a declared kind, [n].

    Raises UserError beginning with ``where`` for a value that is not of the kind.
    """
    return tuple(_convert_one(value, kind, where) for value in values)


def _convert_one(value: object, kind: LabelKind, where: str) -> LabelValue | None:
    cleaned = clean(value)
    if cleaned is None:
        return None
    if kind is LabelKind.CLASS:
        return _class_name(value, cleaned)
    if isinstance(cleaned, str) or (kind is LabelKind.PASS and cleaned not in (0, 1)):
        wanted = "true or false" if kind is LabelKind.PASS else "a number"
        raise UserError(f"{where}: {str(value)[:40]!r} is not {wanted}; correct it or its kind")
    return bool(cleaned) if kind is LabelKind.PASS else float(cleaned)


def label_columns(
    columns: Mapping[str, Sequence[object]],
    instruments: Mapping[str, Instrument],
    where: str,
) -> tuple[dict[str, Instrument], list[dict[str, LabelValue | None]]]:
    """Return the instruments, declared or inferred, and one mapping of labels an item.

    ``columns`` are label name -> values [n]. Raises UserError for values of another kind.
    """
    made: dict[str, Instrument] = {}
    rows: list[dict[str, LabelValue | None]] = [{} for _ in next(iter(columns.values()), ())]
    for name, values in columns.items():
        declared = instruments.get(name)
        if declared is None:
            kind, labels = infer(values)
            made[name] = Instrument(name, kind)
        else:
            labels = convert(values, declared.kind, f"{where}, {name}")
            made[name] = declared
        for row, label in zip(rows, labels, strict=True):
            row[name] = label
    return made, rows
