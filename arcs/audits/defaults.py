"""Audit of failures that stand as labels: defaults, labels without a basis, error texts.

The paper counted a judge's failures as "assert", as a claim that is not met, or as coverage 0
(PAPER.md 8.1 J4 to J6), and an engine's failures as empty answers (8.5 H4).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.labels import label_names, missing_count
from arcs.audits.results import Instrument, Item, LabelKind, LabelValue, Results, ResultSet
from arcs.audits.set_pairs import Pair, arm_pairs, between, percent
from evals.statistics.differences import difference_of_rates

MIN_NEVER_MISSING = 50
UNEVEN_P = 0.01
_ERROR_TEXT = re.compile(
    r"""\s*[\[({"'<]*\s*(?:
    traceback\ \(most\ recent | no_json\b | internal\ server\ error | [\w.]*(?:error|exception):
    | (?:api[ _]?)?error["']?\s*(?:[:\d\])}>(]|\Z) | (?:http(?:\ error)?\ )?[45]\d\d\ \w+\ error
    | (?:request\ |connection\ |rate[ _]?)?
      (?:limit\ exceeded|limited|timeout|timed\ out|reset|refused)
      \s*(?:[:.,;\])}>]|by\ peer|\Z)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""An error at the very start; "Error bars show ..." is prose and does not match."""
_LONGEST_ERROR = 400
_NO_TEXT = frozenset(("", "nan", "none", "null", "n/a", "undefined"))


def error_text(text: str) -> bool:
    """Whether a stored text is an error message, or the name of a missing value."""
    short = text.strip()
    if short.lower() in _NO_TEXT - {""}:
        return True
    return len(short) <= _LONGEST_ERROR and bool(_ERROR_TEXT.match(short))


def silent_defaults(results: Results) -> Outcome:
    """Look for failures that stand as labels: defaults, labels without a basis, error texts."""
    sets = [one for one in results.sets if one.items]
    findings = [
        *(f for one in sets for name in one.instruments for f in _default(one, name)),
        *(f for one in sets for name in one.instruments for f in _no_basis(one, name)),
        *(f for one in sets for name in label_names(one) for f in _not_values(one, name)),
        *(f for one in sets for f in _not_responses(one)),
        *(f for pair in arm_pairs(results) for f in _uneven(pair)),
    ]
    return outcome(findings, len(sets))


def _default(one: ResultSet, name: str) -> Iterator[Finding]:
    default, n = one.instruments[name].default, len(one.items)
    if default is None or n < MIN_NEVER_MISSING or missing_count(one, name):
        return
    given = sum(value == default for value in one.values(name))
    if given:
        yield Finding(
            Severity.BIASES,
            f"{one.name}: {name}",
            f"No label is missing in {n}, and {percent(given, n)} are {default}, which is also "
            "what the instrument gives when it fails: failures cannot be told from that value.",
            "Give failures no value, and store how many there were.",
            {"default": default, "given": given, "n": n},
        )


def _no_basis(one: ResultSet, name: str) -> Iterator[Finding]:
    decided = one.instruments[name].threshold_label
    if decided is None or decided not in one.instruments:
        return
    pairs = zip(one.values(name), one.values(decided), strict=True)
    without = [label for share, label in pairs if share is None and label is not None]
    if without:
        yield Finding(
            Severity.BIASES,
            f"{one.name}: {decided}",
            f"{percent(len(without), len(one.items))} labels are set although the {name} behind "
            f"them is missing ({sum(map(bool, without))} positive).",
            f"Leave {decided} missing where {name} is.",
            {"without": len(without), "positive": sum(map(bool, without)), "n": len(one.items)},
        )


def _not_values(one: ResultSet, name: str) -> Iterator[Finding]:
    instrument = one.instruments.get(name)
    values = [value for value in one.values(name) if value is not None]
    bad = [value for value in values if not _possible(value, instrument)]
    if bad:
        examples: list[Evidence] = [str(value)[:80] for value, _ in Counter(bad).most_common(5)]
        yield Finding(
            Severity.BIASES,
            f"{one.name}: {name}",
            f"{percent(len(bad), len(values))} labels are not values that the instrument can give, "
            f"such as {examples[0]!r}.",
            "Parse judge answers strictly: what is not a declared value is missing.",
            {"impossible": len(bad), "n": len(values), "examples": examples},
        )


def _possible(value: LabelValue, instrument: Instrument | None) -> bool:
    if isinstance(value, str):
        is_number = instrument is not None and instrument.kind is not LabelKind.CLASS
        classes = instrument.classes if instrument else None
        declared = classes is not None and value in classes
        return not is_number and (declared or (classes is None and not error_text(value)))
    if instrument is not None and instrument.scale is not None:
        low, high = instrument.scale
        return low <= value <= high
    return not math.isnan(value)


def _not_responses(one: ResultSet) -> Iterator[Finding]:
    errors = [item for item in one.items if item.response and error_text(item.response)]
    if errors:
        yield Finding(
            Severity.BIASES,
            one.name,
            f"{percent(len(errors), len(one.items))} responses are error messages, such as "
            f"{str(errors[0].response)[:60]!r}.",
            "Leave the response and its labels missing where the request failed.",
            {"errors": len(errors), "ids": [item.item_id for item in errors[:10]]},
        )
    empty = [item for item in one.items if _labelled_empty(item)]
    if empty:
        yield Finding(
            Severity.CAUTION,
            one.name,
            f"{percent(len(empty), len(one.items))} responses are empty and carry labels all the "
            "same.",
            "Find out whether generation failed; where it did, labels are missing.",
            {"empty": len(empty), "ids": [item.item_id for item in empty[:10]]},
        )


def _labelled_empty(item: Item) -> bool:
    empty = item.response is not None and not item.response.strip()
    return empty and any(value is not None for value in item.labels.values())


def _uneven(pair: Pair) -> Iterator[Finding]:
    base, other = pair
    for name in (name for name in label_names(base) if name in label_names(other)):
        lost = [missing_count(one, name) for one in pair]
        sizes = [len(one.items) for one in pair]
        if not any(lost) or not all(sizes):
            continue
        found = difference_of_rates(lost[0], sizes[0], lost[1], sizes[1])
        if found.p_value < UNEVEN_P:
            yield Finding(
                Severity.BIASES,
                f"{between(base, other)}: {name}",
                f"Labels are missing unevenly: {percent(lost[0], sizes[0])} against "
                f"{percent(lost[1], sizes[1])}, Fisher p = {found.p_value:.2g}.",
                "Compare the arms on the items that both have labels for, and report bounds.",
                {"missing": [*lost], "n": [*sizes], "p": found.p_value},
            )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "silent-defaults",
        "Do failures stand as labels or responses?",
        "items",
        silent_defaults,
    ),
)
