"""Free answers that a judge labels: what the instruments of ``threearc measure`` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from arcs.claims import ReasonCode
from arcs.gates import Gates
from arcs.judging.opening import COSTS, JudgeOptions, cache_for, describe_judge, open_judge
from arcs.judging.responses import Item, Labels, judge_responses
from arcs.judging.validity import (
    SVR,
    JudgeValidity,
    bar_of,
    judge_validity,
    svr_validity,
    unanswered,
)
from arcs.labels import parse_judge
from arcs.mean_claims import MeanClaim, Scored, mean_claims
from arcs.measure.answers import View, precise_svr
from arcs.measure.instrument import Record
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from evals.judges.cache import LabelCache
from evals.judges.labels import Judge
from models.errors import UserError

VALIDITY = "judge.json"
TOKENS = ("input_tokens", "output_tokens")
"""Of an endpoint's usage, what has a price."""


@runtime_checkable
class Judged(Protocol):
    """An :class:`arcs.measure.instrument.Instrument` whose records need a judge's labels."""

    @property
    def asks(self) -> tuple[str, ...]:
        """Instruments that a judge applies."""

    def judged_items(self) -> Mapping[str, Item]:
        """What the judge may need to know of each item."""

    def views_of(self, record: Record) -> Mapping[int, View]:
        """An answer at each n_predict."""

    def labelled(
        self, condition: str, records: Sequence[Record], labels: Labels
    ) -> list[dict[str, Any]]:
        """The records with what the labels say, by n_predict."""


@dataclass(frozen=True)
class JudgeSettings:
    """What of the command line reaches the judge."""

    judge: str
    options: JudgeOptions
    cache: Path | None = None
    """None: the user's own file, shared by all runs."""
    references: int | None = None
    """How many of each instrument validate a judge that costs something to ask; None: all."""


@dataclass(frozen=True)
class JudgedRecords:
    """All conditions' records with their labels."""

    records: Mapping[str, list[dict[str, Any]]]
    counts: Mapping[str, Mapping[str, Any]]
    """Condition -> instrument -> labels by status, and how many saw a cut response."""
    validity: JudgeValidity


def judge_all(
    instrument: Judged,
    found: Mapping[str, Sequence[Record]],
    slugs: Mapping[str, str],
    settings: JudgeSettings,
    gates: Gates,
    run: RunDirectory,
    reporter: Reporter,
) -> JudgedRecords:
    """Hold the judge to its bar, then label all conditions' answers: a judge that does not pass
    is known, and said, before its labels are paid for; one behind an API stops here (UserError)
    unless going on was asked for.

    Each label stands in ``<condition>.labels.jsonl`` as soon as it is made. ``slugs``: condition
    -> its name in files.
    """
    source = parse_judge(settings.judge)
    cache = cache_for(source, settings.cache)
    items, made, counted = instrument.judged_items(), {}, {}
    with open_judge(source, reporter, settings.options) as judge:
        run.extend_manifest(judge=identity_of(judge))
        limit = settings.references if judge.id.kind in COSTS else None
        validity = validity_of_run(judge, instrument.asks, gates, cache, run, reporter, limit)
        _say_if_below(judge, validity, instrument.asks, gates, settings, reporter)
        for name, records in found.items():
            responses = {
                view.response(name).id: view.response(name)
                for record in records
                for view in instrument.views_of(record).values()
            }
            with timed_judge(run, f"judge {name}", judge) as counts:
                labels = judge_responses(
                    judge,
                    instrument.asks,
                    items,
                    list(responses.values()),
                    cache=cache,
                    kept=run.json_lines(f"{slugs[name]}.labels.jsonl"),
                    reporter=reporter,
                    label=f"judge {name}",
                )
                counts["labels"] = len(labels.found)
            made[name] = instrument.labelled(name, records, labels)
            counted[name] = {
                one: {"statuses": labels.statuses(one), "cut": labels.cut(one)}
                for one in instrument.asks
            }
        say_usage(judge, reporter)
    return JudgedRecords(made, counted, validity)


def _say_if_below(
    judge: Judge,
    validity: JudgeValidity,
    asks: Sequence[str],
    gates: Gates,
    settings: JudgeSettings,
    reporter: Reporter,
) -> None:
    below = validity.failing(asks)
    if not below:
        return
    found, bar = validity.instruments, bar_of(gates)
    silent = {name: unanswered(found[name], bar) for name in below if name in found}
    if len(silent) == len(below) and all(silent.values()):
        counts = (f"{n} of {found[name]['n']} references of {name}" for name, n in silent.items())
        why = next(iter(found[below[0]]["failures"]), "")
        said = (
            f"judge {judge.id.name}: no answer on {', '.join(counts)} ({why}), so it was not held "
            "to its bar"
        )
        hint = "continue when it answers again, or"
    else:
        first = next((found[name]["shortfalls"] for name in below if name in found), ())
        said = f"judge {judge.id.name}: below its bar on {', '.join(below)}"
        said += f" ({first[0]})" if first else ""
        hint = "name another judge in a new run, or"
    if judge.id.kind == "api" and not settings.options.below_bar:
        raise UserError(
            f"{said}; no label of an answer was paid for: {hint} continue with --judge-below-bar "
            "(claims that rest on it will be INVALID)"
        )
    reporter.say(f"{said}; claims that rest on it will be INVALID")


def identity_of(judge: Judge) -> dict[str, Any]:
    """For a manifest. An endpoint's usage differs from run to run, so it is its id alone."""
    return describe_judge(judge) if judge.id.kind != "api" else dict(vars(judge.id))


@contextmanager
def timed_judge(run: RunDirectory, phase: str, judge: Judge) -> Iterator[dict[str, float]]:
    """A phase of the run's timing, with what an endpoint was asked and paid in it."""
    before = _usage(judge)
    with run.timed(phase) as counts:
        try:
            yield counts
        finally:
            counts |= {name: n - before[name] for name, n in _usage(judge).items()}


def _usage(judge: Judge) -> dict[str, float]:
    """Requests, tokens and dollars so far; nothing of a judge that costs none. Without prices the
    tokens stand apart, for a later sitting that has some."""
    used = describe_judge(judge).get("usage", {})
    found = {name: n for name, n in used.items() if isinstance(n, int | float)}
    if used and "usd" not in found:
        found |= {f"unpriced_{name}": found[name] for name in TOKENS}
    return found


def say_usage(judge: Judge, reporter: Reporter) -> None:
    """What an endpoint was asked and paid, and whether several models answered."""
    described = describe_judge(judge)
    if "usage" not in described:
        return
    used, served = described["usage"], described["served_by"]
    paid = "" if used["usd"] is None else f", ${used['usd']:.4f}"
    reporter.say(
        f"judge: {used['requests']} requests, {used['input_tokens']} tokens in and "
        f"{used['output_tokens']} out{paid}"
    )
    if len(served) > 1:
        reporter.say(
            "judge: more than one model answered, so labels are of several judges: "
            + ", ".join(served)
        )


def validity_of_run(
    judge: Judge,
    asks: Sequence[str],
    gates: Gates,
    cache: LabelCache | None,
    run: RunDirectory,
    reporter: Reporter,
    limit: int | None = None,
) -> JudgeValidity:
    """Decided once in a run: it stays what it was when the run is continued.

    Unless the judge failed on a reference: those are asked again when the run is continued.
    """
    if (run.path / VALIDITY).exists():
        return JudgeValidity(run.read_json(VALIDITY))
    with timed_judge(run, "validate the judge", judge):
        found = judge_validity(judge, asks, gates, cache=cache, reporter=reporter, limit=limit)
    if not any(one["statuses"].get("error") for one in found.instruments.values()):
        run.write_json(VALIDITY, found.to_json())
    return found


def view_record(view: View) -> dict[str, Any]:
    """The part of a view that results need."""
    return {key: value for key, value in asdict(view).items() if key != "item_id"}


def view_from(record: Record, n: int) -> View:
    """Inverse of :func:`view_record`, of a labelled record."""
    fields = {key: record["views"][str(n)][key] for key in View.__dataclass_fields__
              if key != "item_id"}  # fmt: skip
    return View(item_id=record["item_id"], **fields)


def faults_of(
    needs: Sequence[str], failing: frozenset[str], *, trained_on_test: bool
) -> list[ReasonCode]:
    """What makes a claim INVALID whatever its numbers say."""
    found = []
    if failing & set(needs):
        found.append(ReasonCode.JUDGE_NOT_VALID)
    if trained_on_test:
        found.append(ReasonCode.TRAIN_TEST_OVERLAP)
    return found


def svr_claims(
    arms: Sequence[Mapping[int, Sequence[View]]],
    gates: Gates,
    *,
    trained_on_test: bool,
) -> list[MeanClaim]:
    """The edit changes the share of answers that verify themselves (precise measure).

    It is a rule, and is held to the same bar as a judge, on references of its own.
    """
    scored = [
        {
            n: Scored.of(precise_svr(views), [one.unfinished for one in views], 1, keeps=True)
            for n, views in side.items()
        }
        for side in arms
    ]
    failing = frozenset() if svr_validity(gates)["passes"] else frozenset({SVR})
    faults = faults_of((SVR,), failing, trained_on_test=trained_on_test)
    return mean_claims(scored, 1, "the self-verification rate", gates, faults=faults)
