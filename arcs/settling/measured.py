"""What settling needs to know of each instrument of ``measure`` whose claims it goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arcs.claims import ReasonCode, Verdict
from arcs.gates import Gates
from arcs.mean_claims import Scored, mean_claims
from arcs.measure.answers import Asker
from arcs.measure.chef import Chef
from arcs.measure.claim import claim_of
from arcs.measure.config import (
    CHEF,
    DELIVERY,
    LEXICAL,
    METER,
    N_PREDICT,
    SHORT_ANSWERS,
    MeasureConfig,
)
from arcs.measure.delivery import Delivery
from arcs.measure.instrument import Instrument
from arcs.measure.meter import Meter, reading_of
from arcs.measure.meter_claims import meter_claim
from arcs.measure.short_answers import ShortAnswers, answer_of
from arcs.settling.opened import why_not
from arcs.settling.statistic import whole_steps
from arcs.settling.subject import OWN, RECALL, OpenClaim, Seen, why
from backends.interface import Completion
from evals.budgets import view_at
from evals.exact_match import bounds, encode_question
from evals.items.load import built_in, load
from evals.items.recall import recall_items
from evals.items.recorded import PromptItem
from evals.items.records import ChefItem, Item, MeterItem, ShortAnswer
from evals.meter import AXES, encode_pair
from evals.meter_scores import AxisShift, by_axis, scores
from evals.statistics.bootstrap import student_interval
from evals.statistics.sign_flips import sign_flip_p_value
from evals.truncation import repetition_loop
from models.chat import ChatEncoder, Message
from models.errors import UserError

RECALLED = 400
"""Generated short answers that are offered."""
RECORDS: Mapping[str, tuple[str, type[Item]]] = {
    METER: ("meter", MeterItem),
    SHORT_ANSWERS: ("short_answers", ShortAnswer),
    CHEF: ("chef_fresh", ChefItem),
    DELIVERY: ("prompts", PromptItem),
}
"""Instrument -> its own set's name in adapters' records, and what a file of more items holds."""
ASSERTED = "assertion_rate"
"""The claim on free answers that is settled: asserted or hedged, a yes or no an answer."""
Row = Mapping[str, Any]
Side = Sequence[Row]


def require_settleable(run: Path, config: MeasureConfig) -> None:
    """Raise UserError for an instrument whose claims need more than further items."""
    if config.instrument not in RECORDS:
        raise UserError(
            f"{run}: settle goes on with the meter, short answers and the delivery of answers, not "
            f"with {config.instrument}, whose labels need more than items"
        )
    if free(config) and (config.judge or LEXICAL) != LEXICAL:
        raise UserError(
            f"{run}: its labels are a judge's ({config.judge}), which settle does not ask again "
            "(of an API it would cost money); measure anew with a larger --limit"
        )


def free(config: MeasureConfig) -> bool:
    """Whether answers are free text, labelled as asserted or hedged."""
    return config.instrument in (CHEF, DELIVERY)


def claims_of(
    config: MeasureConfig, metrics: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any], str | None]]:
    """Condition, axis or quantity (empty for short answers), claim, and why it stays as it is.

    Of free answers the claim at the largest n_predict.
    """
    for name, condition in metrics["conditions"].items():
        compared = condition["comparison"]
        if compared is None:
            continue
        for part, found in (compared.get("claims") or {"": compared.get("claim")}).items():
            claim = found[-1] if free(config) else found
            why_so = why_not(claim)
            if why_so is None and claim["gate"]["smallest_effect"] is None:
                why_so = "its items do not differ from each other, so no effect has a size"
            if why_so is None and free(config) and part != ASSERTED:
                named = f"{claim['verdict']} ({', '.join(claim['reasons'])})"
                why_so = f"{named}: it stays as it is, since settle goes on with {ASSERTED} alone"
            yield name, part, claim, why_so


def kinds(config: MeasureConfig) -> str:
    """What a file of further items holds, for people."""
    return {
        METER: "meter items (evals/items/data/METER_CARD.md)",
        SHORT_ANSWERS: "short answers (evals/items/data/SHORT_ANSWERS_CARD.md), or "
        f"{RECALL}, generated",
        CHEF: "cooking questions with checklists (evals/items/data/CHEF_CARD.md)",
        DELIVERY: "prompts (id and prompt a line)",
    }[config.instrument]


def items_of(config: MeasureConfig, source: str) -> tuple[Item, ...]:
    """A whole set. Raises UserError as its loader."""
    name, kind = RECORDS[config.instrument]
    if source == RECALL:
        return recall_items(fresh=True, n=RECALLED)
    if source != OWN:
        return load(Path(source), kind)
    if config.instrument == DELIVERY:
        assert config.items is not None  # the config allows no other
        return load(config.items, kind)
    return built_in(name, kind)


def instrument_of(
    config: MeasureConfig, dataset: str, items: Sequence[Item]
) -> Callable[[ChatEncoder], Instrument]:
    """The run's instrument on other items, once there is an encoder."""
    chosen: tuple[Any, ...] = tuple(items)

    def made(encoder: ChatEncoder) -> Instrument:
        if config.instrument == METER:
            axes = tuple(axis for axis in AXES if any(one.axis == axis for one in chosen))
            pairs = tuple(encode_pair(encoder, one) for one in chosen)
            return Meter(pairs, axes, dataset=dataset)
        if config.instrument == SHORT_ANSWERS:
            prompts = tuple(encode_question(encoder, one) for one in chosen)
            return ShortAnswers(chosen, prompts, encoder, n_predict(config), dataset=dataset)
        asked = {one.id: [Message("user", one.prompt)] for one in chosen}
        asker = Asker.of(encoder, asked, config.budgets)
        kind = Chef if config.instrument == CHEF else Delivery
        return kind(chosen, asker, dataset=dataset)

    return made


def n_predict(config: MeasureConfig) -> int:
    """Of short answers."""
    return (config.n_predict or (N_PREDICT,))[0]


def with_labels(
    config: MeasureConfig, condition: str, rows: Side, labels: Sequence[Row]
) -> list[Row]:
    """Of free answers, what each says at the largest n_predict: asserted, and whether it was cut.

    ``labels``: as they were kept; a failed one may be followed by another.
    """
    said = {one["question_id"]: one["value"] == "ASSERT" for one in labels
            if one["instrument"] == DELIVERY and one["status"] == "ok"}  # fmt: skip
    made: list[Row] = []
    for row in rows:
        whole = Completion(row["item_id"], (), tuple(row["ids"]), row["finish_reason"], 0.0)
        views = {n: view_at(whole, n) for n in config.budgets}
        last = views[config.budgets[-1]]
        first = next(n for n, view in views.items() if view.ids == last.ids)
        cut = last.finish_reason != "stop" and repetition_loop(last.ids) is None
        asserted = said.get(f"{condition}/{row['item_id']}@{first}")
        made.append({"item_id": row["item_id"], "asserted": asserted, "cut": cut})
    return made


def differences(config: MeasureConfig, base: Side, edited: Side) -> list[float]:
    """Edited minus base: of answers -1, 0 or 1; of the meter, nats per token."""
    pairs = list(zip(base, edited, strict=True))
    if config.instrument == METER:
        return [e["contrast"] - b["contrast"] for b, e in pairs]
    if config.instrument == SHORT_ANSWERS:
        return [float(answer_of(e).right) - float(answer_of(b).right) for b, e in pairs]
    return [float(e["asserted"]) - float(b["asserted"]) for b, e in pairs
            if None not in (b["asserted"], e["asserted"])]  # fmt: skip


def judged(config: MeasureConfig, claim: OpenClaim, base: Side, edited: Side, gates: Gates) -> Seen:
    """By the rules of the instrument."""
    if config.instrument == METER:
        return _meter(claim, base, edited, gates)
    if config.instrument == SHORT_ANSWERS:
        before, after = ([answer_of(one) for one in side] for side in (base, edited))
        return Seen.of(claim_of(
            bounds(before), bounds(after), [one.right for one in before],
            [one.right for one in after], n_predict(config), gates,
        ))  # fmt: skip
    n = config.budgets[-1]
    arms = [{n: Scored.of([None if one["asserted"] is None else int(one["asserted"])
                           for one in side], [one["cut"] for one in side], 1)}
            for side in (base, edited)]  # fmt: skip
    (found,) = mean_claims(arms, 1, "the assertion rate", gates)
    made = found.to_json()
    return Seen(found.verdict, found.reasons, made["interval"], made["p_value"],
                why(made["explanation"]))  # fmt: skip


def _meter(claim: OpenClaim, base: Side, edited: Side, gates: Gates) -> Seen:
    """One axis, with Student's interval: a bootstrap has no tails as far out as early looks ask."""
    axis = claim.part
    before, after = (by_axis([reading_of(one) for one in side])[axis] for side in (base, edited))
    values = np.array([a.contrast - b.contrast for b, a in zip(before, after, strict=True)])
    interval = student_interval(values, gates.level)
    p = sign_flip_p_value(whole_steps(values.tolist(), claim.unit))
    shift = AxisShift(len(values), float(values.mean()), interval, float(values.std(ddof=1)),
                      int((values > 0).sum()), int((values == 0).sum()), p, p)  # fmt: skip
    # the gate of the plan: new items must not move what an effect is held against
    found = meter_claim(axis, scores(before)[axis], shift, gates, smallest=claim.smallest)
    return Seen(
        Verdict(found["verdict"]), tuple(ReasonCode(one) for one in found["reasons"]),
        interval.to_json(), p, why(found["explanation"]).replace(" (Holm)", ""),
    )  # fmt: skip
