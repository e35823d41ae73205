"""What the report shows of an Arc 1 run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from arcs.arc1.whole_view import EVALUATION, MAIN, items_beside, whole_claims, whole_tables
from arcs.report import generic, parts
from arcs.report.coding import Arm, items_of, problems_of
from arcs.report.stored import StoredRun
from arcs.report.view import Cell, ClaimCard, Item, Number, Row, Table, View
from evals.humaneval.problems import Problem

OWN = {EVALUATION: MAIN}
BASE, TRAINED = Arm("base", "base", None), Arm("trained", "trained", "base")


def view(run: StoredRun) -> View:
    """Verdict, both arms at every n_predict, training, transcripts."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    made, budgets = metrics["made_with"], metrics["budgets"]
    problems, trouble = problems_of(run)
    rates = _rates(metrics)
    smallest = metrics["claim"]["gate"]["smallest_effect"]
    figure = parts.plot_of(
        "Trained minus base pass@1", rates, "difference",
        "Tango intervals; the band is what does not matter", null=0.0, band=(-smallest, smallest),
    )  # fmt: skip
    tables = (_outcomes(metrics), parts.bounds_table("bounds", _bound_rows(budgets)))
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(
            run, made["evaluation"]["dataset"], f"{made['evaluation']['quantisation']} GGUF",
            f"{metrics['claim']['n_items']} problems",
        ),
        finished=True,
        claims=tuple(_claims(metrics)),
        notes=tuple(_notes(metrics, trouble)),
        tables=(
            rates,
            *whole_tables(metrics),
            *(one for one in tables if one is not None),
            *_training(metrics),
        ),
        figures=((figure,) if figure else ()) + generic.pictures(run),
        items=(*_own_items(run, metrics, problems), *items_beside(run, metrics)),
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
    )  # fmt: skip


def _own_items(
    run: StoredRun, metrics: Mapping[str, Any], problems: Mapping[str, Problem]
) -> Iterator[Item]:
    """The benchmark's problems, told apart from the items of other evaluations."""
    between = [Arm(name, name, "base") for name in metrics.get("other_arms", {})]
    for one in items_of(run, (BASE, *between, TRAINED), problems):
        yield replace(one, facets={**OWN, **one.facets})


def _claims(metrics: Mapping[str, Any]) -> Iterator[ClaimCard]:
    """The primary one first, then those at smaller budgets, the largest first.

    What a smaller budget says stands in the table as well; it is minor where it says the same.
    """
    primary = metrics["claim"]
    for budget in reversed(metrics["budgets"]):
        n = budget["n_predict"]
        about = f"n_predict {n}" + (" (the run's verdict)" if n == metrics["primary_n_predict"]
                                    else "")  # fmt: skip
        yield generic.card_of(
            budget["claim"],
            about=about,
            minor=n != metrics["primary_n_predict"]
            and all(budget["claim"][key] == primary[key] for key in ("verdict", "reasons")),
            select={
                **OWN,
                "condition": "trained",
                "n_predict": str(n),
                "change": ("gained", "lost"),
            },
        )
    yield from whole_claims(metrics)


def _notes(metrics: Mapping[str, Any], trouble: str | None) -> Iterator[str]:
    if trouble:
        yield trouble
    if metrics["escalated"]:
        steps = ", ".join(map(str, metrics["escalated"]))
        yield (
            f"Unfinished answers were continued to n_predict {steps}: they could have changed the "
            "conclusion."
        )
    counted = [
        f"{arm} {found['near_ties']:,} of {found['tokens']:,}"
        for arm, found in metrics["decoding"].items()
        if found["near_ties"] is not None
    ]
    if counted:
        yield (
            f"Near-ties among tokens: {', '.join(counted)} (another engine's or machine's rounding "
            "could choose another there)."
        )


def _rates(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for budget in metrics["budgets"]:
        n = str(budget["n_predict"])
        edited = {**OWN, "condition": "trained", "n_predict": n}
        rows.append(
            Row(
                f"n_predict {n}",
                (
                    parts.rate_cell(budget["base"], {**edited, "condition": "base"}),
                    parts.rate_cell(budget["trained"], edited),
                    parts.difference_cell(budget, edited),
                    parts.p_cell(budget["claim"]["p_value"]),
                    parts.detectable_cell(budget["minimum_detectable_effect"]),
                    parts.p_cell(budget["interaction_p"]),
                    parts.verdict_cell(budget["claim"]),
                ),
            )
        )
    return Table(
        name="pass@1",
        title="pass@1 of both arms",
        columns=(
            "base", "trained", "difference", "p", "detectable", "interaction p", "verdict at n",
        ),
        rows=tuple(rows),
        caption="95% intervals: Wilson for rates, Tango for the paired difference; +gained −lost "
        "problems; p: exact McNemar; detectable: the smallest true difference that so many "
        "problems would show; interaction p: budget by arm, against the largest n_predict.",
    )  # fmt: skip


def _outcomes(metrics: Mapping[str, Any]) -> Table:
    columns, rows = parts.outcome_rows(
        (f"{arm}, n_predict {budget['n_predict']}", budget[arm],
         {**OWN, "condition": arm, "n_predict": str(budget["n_predict"])})
        for budget in metrics["budgets"]
        for arm in ("base", "trained")
    )  # fmt: skip
    return Table("outcomes", "Outcomes", columns, rows, caption=parts.OUTCOME_CAPTION)


def _bound_rows(budgets: list[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((f"n_predict {budget['n_predict']}", budget) for budget in budgets)


def _training(metrics: Mapping[str, Any]) -> Iterator[Table]:
    sft, dpo = metrics["training"], metrics["training_dpo"]
    if sft is not None:
        rows = [
            Row("optimiser steps", (parts.count_cell(sft["optimiser_steps"]),)),
            Row("records", (parts.count_cell(sft["examples"]),)),
            Row("records dropped", (parts.count_cell(len(sft["examples_dropped"])),)),
            Row("response tokens", (parts.count_cell(sft["response_tokens"]),)),
            *_losses(sft),
        ]
        yield Table(
            "training",
            "SFT",
            ("value",),
            tuple(rows),
            caption="Losses in nats a response token; held-out where there are rows.",
        )
    if dpo is not None:
        rows = [
            Row("optimiser steps", (parts.count_cell(dpo["optimiser_steps"]),)),
            Row("pairs", (parts.count_cell(dpo["pairs"]),)),
            Row("pairs dropped", (parts.count_cell(len(dpo["pairs_dropped"])),)),
            Row("loss before any update", (_plain(dpo["step0_loss"]),)),
            *_losses(dpo),
        ]
        for when, held in zip(("first", "last"), _ends(dpo["held_out"]), strict=True):
            if held is not None:
                right = Number(held["accuracy"], "share", n=held["pairs"])
                rows.append(Row(f"held-out accuracy, {when}", (parts.number_cell(right),)))
                rows.append(Row(f"held-out margin, {when}", (_plain(held["margin"]),)))
        yield Table("training-dpo", "DPO", ("value",), tuple(rows),
                    caption="Loss: mean over pairs, nats; accuracy: share of pairs with a positive "
                    "margin.")  # fmt: skip


def _losses(found: Mapping[str, Any]) -> Iterator[Row]:
    yield Row("first loss", (_plain(found["first_loss"]),))
    yield Row("last loss", (_plain(found["last_loss"]),))
    for when, held in zip(("first", "last"), _ends(found["held_out"]), strict=True):
        if held is not None:
            of = (
                f"{held['pairs']} pairs"
                if "pairs" in held
                else f"{found['held_out_examples']} records"
            )
            detail = f"step {held['step']}, {of}"
            yield Row(f"held-out loss, {when}", (_plain(held["loss"]),), detail)


def _ends(rows: list[Any]) -> tuple[Any, Any]:
    return (rows[0], rows[-1]) if rows else (None, None)


def _plain(value: float) -> Cell:
    return parts.number_cell(Number(value))
