"""Audits of labels: classes never returned, instruments that differ, labels that are missing.

The paper's certainty parser could not return UNCERTAIN, and its cross-model table mixed a
lenient with a strict claim judge (PAPER.md 8.1 J1, J2).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.results import Instrument, LabelKind, LabelValue, Results, ResultSet, Role
from arcs.audits.set_pairs import percent
from evals.statistics.rates import wilson

MIN_CONSTANT = 20
"""A label must have this many values before "always the same" says something."""
MIN_NEVER_USED = 50
MAX_MISSING_SHARE = 0.02
"""DESIGN.md section 5: more missing than this and a claim is INVALID."""


@dataclass(frozen=True)
class Use:
    """One label in all sets of a family whose labels have one instrument."""

    name: str
    kind: LabelKind
    classes: tuple[str, ...]
    sets: tuple[ResultSet, ...]
    counts: Counter[LabelValue]
    """Values that are not missing, over all sets."""

    @property
    def n(self) -> int:
        """Labels that are not missing."""
        return sum(self.counts.values())

    @property
    def where(self) -> str:
        """The sets and the label."""
        return f"{', '.join(one.name for one in self.sets)}: {self.name}"


def label_names(one: ResultSet) -> list[str]:
    """Every label of a set, described by an instrument or only found in its items."""
    found = dict.fromkeys(one.instruments)
    found.update(dict.fromkeys(name for item in one.items for name in item.labels))
    return list(found)


def _uses(results: Results) -> list[Use]:
    sets: dict[tuple[object, ...], list[ResultSet]] = defaultdict(list)
    for one in results.sets:
        for name, instrument in one.instruments.items():
            sets[one.family, name, instrument.kind, instrument.identity].append(one)
    return [_use(str(key[1]), members) for key, members in sets.items()]


def _use(name: str, sets: Sequence[ResultSet]) -> Use:
    instruments = [one.instruments[name] for one in sets]
    classes = dict.fromkeys(c for one in instruments for c in one.classes or ())
    values = (value for one in sets for value in one.values(name) if value is not None)
    return Use(name, instruments[0].kind, tuple(classes), tuple(sets), Counter(values))


def constant_class(results: Results) -> Outcome:
    """Look for labels that never vary, and for classes that are declared and never returned."""
    uses = [use for use in _uses(results) if use.n >= MIN_CONSTANT]
    return outcome([finding for use in uses for finding in _unused(use)], len(uses))


def _unused(use: Use) -> Iterator[Finding]:
    if len(use.counts) == 1 and len(use.classes) != 1:
        yield _constant(use)
        return
    never = [name for name in use.classes if name not in use.counts]
    if use.kind is LabelKind.CLASS and never and use.n >= MIN_NEVER_USED:
        most = wilson(0, use.n).high
        yield Finding(
            Severity.CAUTION,
            use.where,
            f"{' and '.join(never)} never returned in {use.n} labels (a share above {most:.3f} "
            "is excluded at 95 percent).",
            "Give the instrument items that must get this class, and see that it returns it.",
            {"never": list(never), **_use_evidence(use)},
        )


def _constant(use: Use) -> Finding:
    value = next(iter(use.counts))
    others = [name for name in use.classes if name != value]
    is_class = use.kind is LabelKind.CLASS
    never = f"; {' and '.join(others)} never returned" if others else ""
    return Finding(
        Severity.INVALIDATES if is_class else Severity.BIASES,
        use.where,
        f"All {use.n} labels are {value}{never}: nothing shows that the instrument can say "
        "anything else.",
        "Test the instrument's parser on every answer it may get, or drop the label.",
        {"never": list(others), "value": value, **_use_evidence(use)},
    )


def _use_evidence(use: Use) -> dict[str, Evidence]:
    labels = {
        one.name: sum(value is not None for value in one.values(use.name)) for one in use.sets
    }
    return {
        "n": use.n,
        "n_by_set": labels,
        "counts": {str(value): count for value, count in use.counts.most_common(10)},
    }


def mixed_instruments(results: Results) -> Outcome:
    """Compare the instruments of each label that several sets of a family share."""
    shared: dict[tuple[object, ...], list[ResultSet]] = defaultdict(list)
    for family, sets in results.families().items():
        trained = any(one.role is Role.TRAIN for one in sets)
        for one in sets:
            # Benchmarks have judges of their own; what is trained on one set and tested on
            # another has not.
            task = None if trained else one.task
            for name in one.instruments:
                shared[family, task, name].append(one)
    compared = [(str(key[-1]), sets) for key, sets in shared.items() if len(sets) > 1]
    differing = (_differing(name, sets) for name, sets in compared)
    return outcome([*(f for f in differing if f), *_unknown(compared)], len(compared))


def _places(name: str, sets: Sequence[ResultSet]) -> str:
    return f"{', '.join(one.name for one in sets)}: {name}"


def _described(name: str, sets: Sequence[ResultSet]) -> dict[str, Evidence]:
    return {
        one.name: {part: _text(getattr(one.instruments[name], part)) for part in _PARTS}
        for one in sets
    }


_PARTS = ("kind", "judge", "prompt_sha", "response_cut", "classes", "scale")


def _all(instruments: Sequence[Instrument], part: str) -> set[object]:
    if part == "classes":
        return {frozenset(one.classes) if one.classes else None for one in instruments}
    return {getattr(one, part) for one in instruments}


def _stored(instruments: Sequence[Instrument], part: str) -> set[object]:
    return _all(instruments, part) - {None}


def _needed(instruments: Sequence[Instrument]) -> tuple[str, ...]:
    # A test program has no prompt; a rubric or a claim judge has one.
    is_program = all(one.kind is LabelKind.PASS and one.judge for one in instruments)
    same_program = is_program and not _stored(instruments, "prompt_sha")
    return ("judge",) if same_program else ("judge", "prompt_sha")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _differing(name: str, sets: Sequence[ResultSet]) -> Finding | None:
    instruments = [one.instruments[name] for one in sets]
    differ = [part for part in _PARTS if len(_stored(instruments, part)) > 1]
    if not differ:
        return None
    return Finding(
        Severity.INVALIDATES,
        _places(name, sets),
        f"The label has one name but different instruments: {', '.join(differ)} differ, so a "
        "difference between the sets may be one between instruments.",
        "Label all sets again with one judge, one prompt and whole responses.",
        {"differ": list(differ), "instruments": _described(name, sets)},
    )


def _unknown(compared: Sequence[tuple[str, Sequence[ResultSet]]]) -> Iterator[Finding]:
    """One finding for all labels of the same sets of which the same is not stored."""
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
    for name, sets in compared:
        parts = _not_stored([one.instruments[name] for one in sets])
        if parts:
            alike[tuple(one.name for one in sets), parts].append(name)
    for (sets_named, parts), names in alike.items():
        yield Finding(
            Severity.CAUTION,
            f"{', '.join(sets_named)}: {', '.join(names)}",
            f"Nothing shows that the sets were labelled by one instrument: {' and '.join(parts)} "
            "not stored for each of them.",
            "Store judge, prompt hash and response cut with every label.",
            {"not_stored": list(parts), "labels": list(names), "sets": list(sets_named)},
        )


def _not_stored(instruments: Sequence[Instrument]) -> tuple[str, ...]:
    cut_known = {one.response_cut is None for one in instruments}
    unknown = [part for part in _needed(instruments) if None in _all(instruments, part)]
    # A cut is stored only where there was one: a mix says that some sets do not tell.
    return (*unknown, *(["response_cut"] if len(cut_known) > 1 else []))


def missing_labels(results: Results) -> Outcome:
    """Count the missing values of each label in each set."""
    places = [(one, name) for one in results.sets if one.items for name in label_names(one)]
    return outcome([f for one, name in places for f in _too_many_missing(one, name)], len(places))


def missing_count(one: ResultSet, name: str) -> int:
    """Items of a set without a value of a label."""
    return sum(value is None for value in one.values(name))


def _too_many_missing(one: ResultSet, name: str) -> Iterator[Finding]:
    missing, n = missing_count(one, name), len(one.items)
    if missing / n > MAX_MISSING_SHARE:
        found = wilson(missing, n)
        yield Finding(
            Severity.INVALIDATES,
            f"{one.name}: {name}",
            f"{percent(missing, n)} labels are missing, 95 percent interval {found.low:.3f} to "
            f"{found.high:.3f}; at most 2 percent may.",
            "Ask the judge again for the missing items, and report bounds with them right and "
            "wrong.",
            {"missing": missing, "n": n, "interval": found.to_json()},
        )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "constant-class",
        "Is a label always the same, or a declared class never returned?",
        "20 labels of an instrument",
        constant_class,
    ),
    Audit(
        "mixed-instruments",
        "Does one label name stand for different judges, prompts or response cuts?",
        "a label that several sets share",
        mixed_instruments,
    ),
    Audit(
        "missing-labels",
        "Are more than 2 percent of a label missing?",
        "labels",
        missing_labels,
    ),
)
