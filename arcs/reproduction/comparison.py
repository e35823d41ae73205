"""Every number that the paper prints, or its files hold, beside its recomputation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from arcs.reproduction.artifacts import Artifacts, FileAbsent
from arcs.reproduction.groups import GROUPS, MISFITS, Facts, facts_of, misfit
from arcs.reproduction.numbers import Number, numbers
from arcs.reproduction.rows import Row, Status, Value
from evals.statistics.auc import mann_whitney_u
from evals.statistics.rates import Interval
from models.errors import UserError

MAX_SWAPS = 5
"""Pairs of items that another solver or BLAS may order the other way in a fitted AUC."""
TOLERANCE = 1e-9
FITTED = 1e-12
FURTHER = "Further numbers that the files determine"
_DERIVED = "the published files determine it; the paper does not print it"
_REFERENCE = re.compile(r"\{([^{}|]+)(?:\|([^{}]+))?\}")
_SUFFIX = ".intervals"


def rows(artifacts: Artifacts) -> list[Row]:
    """One row for each number; takes a few seconds.

    Rows whose files are not there are ``NOT_DETERMINED``. Raises UserError for a file that is
    damaged.
    """
    source = _Source(artifacts, facts_of(artifacts))
    return [*(_row(source, number) for number in numbers()), *_further(source)]


def one_row(artifacts: Artifacts, key: str) -> Row:
    """The row of one entry of the table of numbers, from the files it needs alone.

    Raises KeyError for a key that is not in the table, and UserError as :func:`rows` does.
    """
    number = {number.key: number for number in numbers()}[key]
    return _row(_Source(artifacts, facts_of(artifacts)), number)


@dataclass(frozen=True)
class _Source:
    """Where values come from."""

    artifacts: Artifacts
    facts: Facts

    def value(self, reference: str) -> Any:
        """A value of a group, ``group:path/to/value``."""
        key, _, path = reference.partition(":")
        return _walk(self.facts(key), path)

    def published(self, reference: str) -> Any:
        """A value of a published file, ``file.json:path/to/value``."""
        name, _, path = reference.partition(":")
        try:
            return _walk(self.artifacts.raw(name), path)
        except (LookupError, TypeError, ValueError):
            raise UserError(
                f"{self.artifacts.folder}/{name}: damaged (nothing at {path}); "
                "fetch it again with: threearc reproduce --download"
            ) from None


def _walk(found: Any, path: str) -> Any:
    for part in path.split("/"):
        found = found[int(part)] if isinstance(found, list | tuple) else found[part]
    return found


def _row(source: _Source, number: Number) -> Row:
    try:
        row = _found(source, number)
    except FileAbsent as absent:
        return _blank(number, f"needs {absent}, which is not in the folder")
    except MISFITS as error:
        problem = misfit(source.artifacts, _files_behind(number), error)
        if problem is None:
            raise
        raise problem from None
    return _with_warnings(source, row, _files_behind(number))


def _blank(number: Number, reason: str) -> Row:
    return Row(
        key=number.key,
        section=number.section,
        quantity=number.quantity,
        paper=printed_value(number.paper),
        paper_source=number.source,
        published=None,
        published_source=number.published,
        recomputed=None,
        status=Status.NOT_DETERMINED,
        reason=reason,
        interval=None,
        interval_method=None,
        n=None,
    )


def _found(source: _Source, number: Number) -> Row:
    published = _plain(source.published(number.published)) if number.published else None
    recomputed = _plain(source.value(number.recomputed)) if number.recomputed else None
    status, note = _judge(source, number, published, recomputed)
    estimate = _estimate(source, number)
    return replace(
        _blank(number, _join(note, _filled(source, number.reason))),
        published=published,
        recomputed=recomputed,
        status=status,
        interval=_interval(estimate),
        interval_method=estimate.get("method"),
        n=estimate.get("n"),
    )


def _judge(
    source: _Source, number: Number, published: Value, recomputed: Value
) -> tuple[Status, str]:
    """Status of a number, and what the comparison itself has to say."""
    if number.status is not None:
        return Status.CONTRADICTS if number.status == "contradicts" else Status.NOT_DETERMINED, ""
    paper_agrees = all(
        agrees_as_printed(number.paper, value) for value in (published, recomputed)
    ) or _says_nothing(number.paper)
    files_agree, note = _files_agree(source, number, published, recomputed)
    if not (paper_agrees and files_agree):
        return Status.CONTRADICTS, note
    if number.check is not None and source.value(number.check) is not True:
        return Status.CONTRADICTS, "inconsistent with what else is published"
    only = number.printed_only or number.check is not None
    return (Status.CONSISTENT if only else Status.EXACT), note


def _says_nothing(printed: str | None) -> bool:
    """Whether the paper prints a word where the files have a number, such as "near ceiling"."""
    return printed is not None and printed.startswith("near ")


def _files_agree(
    source: _Source, number: Number, published: Value, recomputed: Value
) -> tuple[bool, str]:
    if published is None or recomputed is None:
        return True, ""
    if number.pairs is not None:
        return agrees_as_fitted(float(published), float(recomputed), *source.value(number.pairs))
    if isinstance(published, float) and isinstance(recomputed, float):
        tolerance = TOLERANCE if number.digits is None else _half_step(number.digits)
        return abs(published - recomputed) <= tolerance, ""
    return published == recomputed, ""


def agrees_as_fitted(
    published: float, recomputed: float, n_positive: int, n_negative: int
) -> tuple[bool, str]:
    """Whether two fitted AUCs agree, and by how many swapped pairs if not to the last digit."""
    if abs(published - recomputed) <= FITTED:
        return True, ""
    first, second = (
        mann_whitney_u(value, n_positive, n_negative) for value in (published, recomputed)
    )
    swaps = round(abs(first - second), 1)
    note = f"{swaps:g} of {n_positive * n_negative} pairs are ordered the other way"
    return swaps <= MAX_SWAPS, note


def agrees_as_printed(printed: str | None, value: Value) -> bool:
    """Whether a value prints as the paper prints it; true where either is missing.

    A tie in the last printed digit may have been rounded either way.
    """
    if printed is None or value is None:
        return True
    expected = printed_value(printed)
    if isinstance(expected, str) or isinstance(value, str) or expected is None:
        return str(value) == printed
    return abs(value - expected) <= _half_step(_decimals(printed))


def printed_value(printed: str | None) -> Value:
    """A printed number as int or float, anything else as the text it is."""
    if printed is None:
        return None
    try:
        return float(printed) if "." in printed else int(printed)
    except ValueError:
        return printed


def _decimals(printed: str) -> int:
    exponent = Decimal(printed).as_tuple().exponent
    return max(0, -int(exponent))


def _half_step(decimals: int) -> float:
    return 0.5 * 10.0**-decimals + TOLERANCE


def _plain(value: Any) -> Value:
    """A value as rows hold it: truth values as words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    result: Value = value
    return result


def _estimate(source: _Source, number: Number) -> Mapping[str, Any]:
    """The value with interval, method and n that belongs to a number; empty where there is none."""
    if number.interval is not None:
        return dict(source.value(number.interval))
    return _beside(source, number.recomputed) if number.recomputed is not None else {}


def _beside(source: _Source, reference: str) -> Mapping[str, Any]:
    """The interval beside a group's value, or at the same path of the group's intervals."""
    key, _, path = reference.partition(":")
    parent, _, last = path.rpartition("/")
    candidates = [(key, parent)] if last == "value" else [(key + _SUFFIX, path)]
    for group, where in candidates:
        if group in GROUPS:
            try:
                found = _walk(source.facts(group), where)
            except (LookupError, TypeError, ValueError):
                continue
            if isinstance(found, Mapping) and found.get("interval") is not None:
                return found
    return {}


def _interval(estimate: Mapping[str, Any]) -> Interval | None:
    if estimate.get("interval") is None:
        return None
    low, high = estimate["interval"]
    return Interval(low, high, estimate["level"])


def _filled(source: _Source, text: str) -> str:
    def fill(match: re.Match[str]) -> str:
        return format(source.value(match[1]), match[2] or "")

    return _REFERENCE.sub(fill, text)


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _files_behind(number: Number) -> set[str]:
    references = [number.recomputed, number.interval, number.check, number.pairs]
    references += [match[1] for match in _REFERENCE.finditer(number.reason)]
    groups = {reference.partition(":")[0] for reference in references if reference}
    if number.recomputed:
        groups |= {number.recomputed.partition(":")[0] + _SUFFIX} & set(GROUPS)
    files = {name for group in groups for name in GROUPS[group].files}
    return files | ({number.published.partition(":")[0]} if number.published else set())


def _with_warnings(source: _Source, row: Row, files: Iterable[str]) -> Row:
    changed = sorted(source.artifacts.changed & set(files))
    if not changed:
        return row
    warnings = tuple(f"{name} is not the published file" for name in changed)
    return replace(row, reason=_join(*warnings, row.reason), warnings=warnings)


def _further(source: _Source) -> list[Row]:
    """Rows of every other value of the groups that rest on published data."""
    used = {number.recomputed for number in numbers()}
    keys = [key for key in GROUPS if not key.endswith(_SUFFIX) and not key.startswith(_NO_ROWS)]
    return [row for key in keys for row in _group_rows(source, key, used)]


_NO_ROWS = (
    "printed.",  # from printed numbers
    "probe.", "sweep.", "pca_rank",  # published summaries and checks of them
    "labels.threshold_counts", "labels.by_claim_count", "labels.sizes",  # rows have the shares
    "2x2.gemma.percent", "smollm.fresh_interval", "arc1.mcas.difference",  # other units
    "attr.gemma.consistency", "attr.qwen35.consistency",
)  # fmt: skip
"""Groups whose values are not rows of their own, by how their keys begin."""


def _group_rows(source: _Source, key: str, used: set[str | None]) -> list[Row]:
    try:
        leaves = dict(_leaves(source.facts(key)))
    except FileAbsent as absent:
        number = Number(key=key, section=FURTHER, quantity=key, recomputed=f"{key}:")
        return [_blank(number, f"needs {absent}, which is not in the folder")]
    fresh = [path for path in leaves if not {f"{key}:{path}", f"{key}:{path}/value"} & used]
    fresh = [path for path in fresh if not path.startswith(("intervals/", "lowest"))]
    return [_further_row(source, key, path, leaves[path]) for path in fresh]


def _further_row(source: _Source, key: str, path: str, leaf: Any) -> Row:
    reference = f"{key}:{path}/value" if isinstance(leaf, Mapping) else f"{key}:{path}"
    number = Number(
        key=f"{key}/{path}",
        section=FURTHER,
        quantity=f"{key}: {path.replace('/', ', ').replace('_', ' ')}",
        recomputed=reference,
        reason=_DERIVED,
    )
    return _row(source, number)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Paths and values below a group; a value with its interval is one leaf."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and "interval" not in value:
            yield from _leaves(value, f"{path}/")
        else:
            yield path, value
