"""Right or wrong, by the run's instrument; a label that could not be had is missing, not wrong.

An answer that the budget cut may still become right or wrong: ``low`` and ``high`` are its label
where every open answer is wrong, or right.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcs.arc1 import evaluation
from arcs.arc1.problems import Item
from arcs.arc3.config import EXACT_MATCH, EXECUTION, Arc3Config
from arcs.arc3.responses import Response
from arcs.gates import Gates
from arcs.judging.opening import JudgeOptions, cache_for, open_judge
from arcs.judging.responses import Item as JudgedItem
from arcs.judging.responses import Labels, judge_responses, spoken
from arcs.judging.responses import Response as Judged
from arcs.judging.validity import judge_validity
from arcs.labels import JudgeSource
from arcs.measure.judged import identity_of, say_usage, timed_judge, validity_of_run
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from evals.coverage import Covered
from evals.exact_match import score
from evals.humaneval.execution import Limits
from evals.humaneval.extraction import extract
from evals.humaneval.sandbox.detect import detect_level
from evals.items.short_answer import Reading
from evals.judges.instruments import COVERAGE

EXECUTIONS, JUDGED = "executions.jsonl", "labels.jsonl"
DELIVERY = "delivery"
ARM = "base"
COVERAGE_CUT = 0.5
"""Share of the claims that makes an answer right, as in the paper; every checklist has four."""


@dataclass(frozen=True)
class Labelled:
    """One answer's label."""

    item_id: str
    right: bool | None
    """None: no label."""
    low: bool | None
    high: bool | None
    detail: str
    """What the instrument said, e.g. ``unparsed``."""
    program: str | None = None
    """Extracted from the text and run; None where nothing was."""
    output: str | None = None
    """What running it gave."""

    @property
    def open(self) -> bool:
        """Whether more text could have changed it."""
        return self.low != self.high


@dataclass(frozen=True)
class Labelling:
    """All labels of a run."""

    of: tuple[Labelled, ...]
    """In the order of the responses."""
    asserted: tuple[bool | None, ...]
    """Whether each answer is delivered as certain, by the judge of delivery."""
    instrument: dict[str, Any]
    failing: tuple[str, ...] = ()
    """Instruments of the judge that are below their bar: claims are INVALID."""
    delivery: dict[str, Any] | None = None
    """Who judged delivery, and whether it passes."""

    @property
    def identity(self) -> dict[str, Any]:
        """Of the instrument, what stays when a run is continued: not how a judge did on references
        that are asked again, nor what it was paid."""
        stays = ("labels", "rule", "sandbox", "limits", "judge", "cut")
        return {key: self.instrument[key] for key in stays if key in self.instrument}


def label(
    config: Arc3Config,
    found: Sequence[Response],
    run: RunDirectory,
    gates: Gates,
    reporter: Reporter,
    options: JudgeOptions,
) -> Labelling:
    """Label every answer; what costs something is kept as it is made."""
    if config.kind == EXACT_MATCH:
        of, instrument = exact(found), {"labels": EXACT_MATCH, "rule": "evals/items/short_answer"}
    elif config.kind == EXECUTION:
        of, instrument = _executed(config, found, run, reporter)
    else:
        return _judged(config, found, run, gates, reporter, options)
    asserted, delivery = _delivered(found, run, gates, reporter)
    return Labelling(of, asserted, instrument, (), delivery)


def exact(found: Sequence[Response]) -> tuple[Labelled, ...]:
    """By exact match: of the ids' text alone, so that anyone can do it again."""
    made = []
    for one in found:
        answer = score(one.question.record, one.text, one.ids, truncated=one.truncated)
        right = answer.reading is Reading.RIGHT
        made.append(
            Labelled(
                one.question.item_id,
                right,
                low=False if answer.open else right,
                high=True if answer.open else right,
                detail=answer.reading.value,
            )
        )
    return tuple(made)


def _executed(
    config: Arc3Config, found: Sequence[Response], run: RunDirectory, reporter: Reporter
) -> tuple[tuple[Labelled, ...], dict[str, Any]]:
    level, limits = detect_level(allow_weak=config.allow_weak_sandbox), Limits()
    given = [_program(one, config.budget) for one in found]
    executions = evaluation.execute(
        given, run.json_lines(EXECUTIONS), level, limits, os.cpu_count() or 1, reporter
    )
    results = evaluation.results(given, executions)[ARM][config.budget]
    ran = {one.item.key: evaluation.execution_of(one, executions) for one in given}
    programs = {one.item.key: one.extraction.code for one in given}
    made = tuple(
        Labelled(
            one.item_id,
            one.passed,
            low=False if one.unfinished and one.passed is not None else one.passed,
            high=True if one.unfinished and one.passed is not None else one.passed,
            detail=one.outcome.value,
            program=programs[one.item_id],
            output=None
            if (execution := ran[one.item_id]) is None
            else execution.detail or execution.status,
        )
        for one in results
    )
    return made, {"labels": EXECUTION, "sandbox": level.name, "limits": limits.description()}


def _program(one: Response, budget: int) -> evaluation.Answer:
    question = one.question
    item = Item(question.record, question.prompt, question.think_open, question.prompt_sha)
    found = extract(one.text, question.record, style="chat", think_open=question.think_open)
    return evaluation.Answer(ARM, item, budget, one.text, one.truncated, one.loop, found)


def _judged(
    config: Arc3Config,
    found: Sequence[Response],
    run: RunDirectory,
    gates: Gates,
    reporter: Reporter,
    options: JudgeOptions,
) -> Labelling:
    """Coverage of each item's checklist, cut at :data:`COVERAGE_CUT`, and delivery."""
    source = config.source.judge
    if source is None:
        raise ValueError("labels by a judge need a judge")
    cache, instruments = cache_for(source, None), (COVERAGE.name, DELIVERY)
    with open_judge(source, reporter, options) as judge:
        described = identity_of(judge)
        validity = validity_of_run(judge, instruments, gates, cache, run, reporter)
        with timed_judge(run, "judge", judge) as counts:
            labels = judge_responses(
                judge, instruments, _items(found), [_spoken(one) for one in found],
                cache=cache, kept=run.json_lines(JUDGED), reporter=reporter,
            )  # fmt: skip
            counts["labels"] = len(labels.found)
        say_usage(judge, reporter)
    of = tuple(_covered(one, labels) for one in found)
    return Labelling(
        of,
        _asserted(found, labels),
        {
            "labels": config.labels,
            "judge": described,
            "cut": COVERAGE_CUT,
            "validity": validity.to_json(),
            "responses_cut_for_the_judge": labels.cut(COVERAGE.name),
        },
        tuple(validity.failing((COVERAGE.name,))),
        {"judge": described, "passes": not validity.failing((DELIVERY,))},
    )


def _covered(one: Response, labels: Labels) -> Labelled:
    """An answer that was cut may state more claims, never fewer."""
    claims = labels.covered(_spoken(one))
    share = Covered(one.question.item_id, claims).share
    right = None if share is None else share >= COVERAGE_CUT
    opened = one.truncated and not one.loop and right is False
    stated = "-" if share is None else f"{sum(map(bool, claims))}/{len(claims)}"
    return Labelled(
        one.question.item_id, right, low=right, high=True if opened else right, detail=stated
    )


def _delivered(
    found: Sequence[Response], run: RunDirectory, gates: Gates, reporter: Reporter
) -> tuple[tuple[bool | None, ...], dict[str, Any]]:
    """Delivery by the lexical judge, where the labels come from no judge."""
    with open_judge(JudgeSource("lexical"), reporter) as judge:
        validity = judge_validity(judge, (DELIVERY,), gates, reporter=reporter)
        labels = judge_responses(
            judge, (DELIVERY,), _items(found), [_spoken(one) for one in found],
            kept=run.json_lines(JUDGED), reporter=reporter, label="delivery",
        )  # fmt: skip
        described = identity_of(judge)
    return _asserted(found, labels), {
        "judge": described,
        "passes": not validity.failing((DELIVERY,)),
    }


def _asserted(found: Sequence[Response], labels: Labels) -> tuple[bool | None, ...]:
    values = [labels.value(_spoken(one), DELIVERY) for one in found]
    return tuple(None if value is None else value == "ASSERT" for value in values)


def _items(found: Sequence[Response]) -> dict[str, JudgedItem]:
    made = {}
    for one in found:
        question = one.question
        claims = tuple(getattr(question.record, "checklist", ()))
        made[question.item_id] = JudgedItem(question.item_id, question.text, claims)
    return made


def _spoken(one: Response) -> Judged:
    text = spoken(one.text, think_open=one.question.think_open)
    return Judged(one.question.item_id, one.question.item_id, text)


def counts(found: Sequence[Labelled]) -> dict[str, Any]:
    """One set's labels."""
    right = sum(one.right is True for one in found)
    labelled = sum(one.right is not None for one in found)
    return {
        "n": len(found),
        "right": right,
        "wrong": labelled - right,
        "missing": len(found) - labelled,
        "open": sum(one.open for one in found),
        "details": dict(sorted(Counter(one.detail for one in found).items())),
    }
