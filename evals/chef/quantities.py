"""Temperatures, cuts and cooking times against the reference's ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from evals.chef.readings import Reading, readings
from evals.chef.reference import Reference
from evals.chef.statements import Statement, Verdict
from evals.chef.text import clauses, stems
from evals.judges.matching import words

CUT_TOLERANCE, TIME_TOLERANCE = 0.1, 0.2
"""Shares of a bound: "about 2 mm" and "25 minutes" are rounded."""


def temperatures(sentence: str, reference: Reference) -> Iterator[Statement]:
    """A statement for each temperature, of the entry that its clause names, else its sentence.

    Where several entries are meant (a chocolate's three steps), one that agrees suffices. What a
    sentence names elsewhere can contradict a number only if it stands just before it, and if the
    number is the sentence's only one.
    """
    found_in_all = len(readings(sentence, "temperature"))
    if not found_in_all:
        return
    whole, several = _entries(sentence, reference), found_in_all > 1
    before = ""
    for clause in clauses(sentence):
        near = _entries(clause, reference)
        close = near or ([] if several else _entries(f"{before}, {clause}", reference))
        for reading in readings(clause, "temperature"):
            found = _temperature(reading, close or whole, reference)
            apart = not close or (before and not near and not _entries(before, reference))
            general = found.subject and not _opens(sentence, found.subject, reference)
            if found.verdict == "contradicted" and (apart or general):
                found = replace(found, verdict="unknown")
            yield found
        before = clause


def _opens(sentence: str, key: str, reference: Reference) -> bool:
    """Whether a general entry ("simmering") is what a sentence begins with; others may be anywhere.

    "65 °C, far from simmering" is about something else.
    """
    cue = reference.temperature_cues[key.partition(".")[2]]
    first = words(sentence)[:2]
    return not cue.general or cue.holds(first, stems(first))


def _entries(text: str, reference: Reference) -> list[str]:
    found = words(text)
    found_stems = stems(found)
    meant = [k for k, cue in reference.temperature_cues.items() if cue.holds(found, found_stems)]
    special = [key for key in meant if not reference.temperature_cues[key].general]
    return special or meant


def _temperature(reading: Reading, keys: Sequence[str], reference: Reference) -> Statement:
    judged = [
        (_within(reading, *_bounds(reference.entries["temperatures"][key]), reading.tolerance), key)
        for key in keys
    ]
    order: tuple[Verdict, ...] = ("correct", "unknown", "contradicted")
    if not judged:
        return Statement("temperature", "", "unknown", reading.text.strip())
    verdict, key = min(judged, key=lambda pair: order.index(pair[0]))
    low, high = _bounds(reference.entries["temperatures"][key])
    return Statement(
        "temperature", f"temperatures.{key}", verdict, reading.text.strip(),
        f"{low:g} to {high:g} °C",
    )  # fmt: skip


def _bounds(entry: Any) -> tuple[float, float]:
    return float(entry["low"]), float(entry["high"])


def _within(reading: Reading, low: float, high: float, tolerance: float) -> Verdict:
    """Correct inside, contradicted outside; a range that is partly outside is unknown."""
    if low - tolerance <= reading.low and reading.high <= high + tolerance:
        return "correct"
    if reading.high < low - tolerance or reading.low > high + tolerance:
        return "contradicted"
    return "unknown"


def cuts(sentence: str, reference: Reference) -> Iterator[Statement]:
    """A statement for each length in a sentence that names one knife cut."""
    named = {one.key for one in reference.cuts.find(words(sentence))}
    if len(named) != 1:
        return
    (key,) = named
    entry = reference.entry(key)
    ranges = [entry[name] for name in ("cross_mm", "thickness_mm", "length_mm") if name in entry]
    for reading in readings(sentence, "length"):
        agree = any(
            _within(reading, low, high, max(0.5, CUT_TOLERANCE * high)) != "contradicted"
            for low, high in ranges
        )
        known = ", ".join(f"{low:g} to {high:g} mm" for low, high in ranges)
        verdict: Verdict = "correct" if agree else "contradicted"
        yield Statement("cut", key, verdict, reading.text.strip(), known)


def times(sentence: str, reference: Reference) -> Iterator[Statement]:
    """A statement for each time in a sentence that names one thing with a cooking time."""
    named = {one.key for one in reference.times.find(words(sentence))}
    found = readings(sentence, "time")
    if len(named) != 1 or len(found) != 1:  # several times in a sentence are of several steps
        return
    (key,) = named
    low, high = reference.entry(key)["minutes"]
    verdict = _within(found[0], low, high, max(0.5, TIME_TOLERANCE * high))
    yield Statement("time", key, verdict, found[0].text.strip(), f"{low:g} to {high:g} minutes")
