"""What the report shows of a quantised evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.evaluate.config import conditions_of, parse
from arcs.report import generic, parts
from arcs.report.coding import Arm, items_of, problems_of
from arcs.report.stored import StoredRun
from arcs.report.view import ClaimCard, Number, Row, Table, View


def view(run: StoredRun) -> View:
    """Claims, every condition at every quantisation and n_predict, transcripts."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    arms = _arms(metrics)
    problems, trouble = problems_of(run)
    rates, differences = _rates(metrics), _differences(metrics)
    found = (rates, differences, _pass_at_k(metrics), _outcomes(metrics),
             parts.bounds_table("bounds", _bound_rows(metrics)), _quality(metrics))  # fmt: skip
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(
            run, metrics["made_with"]["evaluation"]["dataset"],
            ", ".join(metrics["quantisations"]), f"{metrics['n_items']} problems",
        ),
        finished=True,
        claims=tuple(_claims(metrics)),
        notes=tuple(_notes(metrics, trouble)),
        tables=tuple(table for table in found if table is not None),
        figures=(*_figures(rates, differences, metrics), *generic.pictures(run)),
        items=items_of(run, arms, problems),
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
    )  # fmt: skip


def _each(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Quantisation, condition, result; the base first, in the order of the flags."""
    order = list(_slugs(metrics))
    for quantisation in metrics["config"]["quantisations"]:
        found = metrics["quantisations"][quantisation]
        for name in sorted(found, key=order.index):
            yield quantisation, name, found[name]


def _slugs(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Condition -> its part of records and file names."""
    return {one.name: one.slug for one in conditions_of(parse(metrics["config"]))}


def _shown(metrics: Mapping[str, Any], quantisation: str, name: str) -> str:
    several = len(metrics["quantisations"]) > 1
    return f"{name} ({quantisation})" if several else name


def _arms(metrics: Mapping[str, Any]) -> tuple[Arm, ...]:
    slugs = _slugs(metrics)
    return tuple(
        Arm(
            f"{quantisation}.{slugs[name]}",
            _shown(metrics, quantisation, name),
            f"{quantisation}.{slugs[found['against']]}" if found["against"] else None,
        )
        for quantisation, name, found in _each(metrics)
    )


def _claims(metrics: Mapping[str, Any]) -> Iterator[ClaimCard]:
    for quantisation, name, found in _each(metrics):
        if found["comparison"] is not None:
            claim = found["comparison"]["claim"]
            shown = _shown(metrics, quantisation, name)
            select = {"condition": shown, "n_predict": str(claim["n_predict"]),
                      "change": ("gained", "lost")}  # fmt: skip
            against = "" if found["against"] == "base" else f", against {found['against']}"
            yield generic.card_of(claim, about=shown + against, select=select)


def _rates(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for quantisation, name, found in _each(metrics):
        shown = _shown(metrics, quantisation, name)
        cells = tuple(
            parts.rate_cell(found["budgets"][str(n)], {"condition": shown, "n_predict": str(n)})
            for n in metrics["n_predict"]
        )
        rows.append(Row(f"{name}, {quantisation}", cells))
    several = metrics["config"]["samples"] > 1
    intervals = "BCa bootstrap over problems" if several else "Wilson"
    return Table(
        name="pass@1",
        title="pass@1",
        columns=tuple(f"n_predict {n}" for n in metrics["n_predict"]),
        rows=tuple(rows),
        caption=f"95% intervals: {intervals}; below them passed of counted answers.",
    )


def _differences(metrics: Mapping[str, Any]) -> Table | None:
    rows = []
    for quantisation, name, found in _each(metrics):
        if found["comparison"] is None:
            continue
        shown = _shown(metrics, quantisation, name)
        for budget in found["comparison"]["budgets"]:
            n = str(budget["n_predict"])
            rows.append(
                Row(
                    f"{name}, {quantisation}, n_predict {n}",
                    (
                        parts.difference_cell(budget, {"condition": shown, "n_predict": n}),
                        parts.p_cell(budget["claim"]["p_value"]),
                        parts.p_cell(budget["interaction_p"]),
                        parts.verdict_cell(budget["claim"]),
                    ),
                    f"against {found['against']}",
                )
            )
    if not rows:
        return None
    several = metrics["config"]["samples"] > 1
    how = "BCa bootstrap interval, exact sign flips" if several else "Tango interval, exact McNemar"
    samples = " (of more or fewer samples; links lead to the samples that changed)" * several
    return Table(
        name="difference",
        title="Differences of pass@1",
        columns=("difference", "p", "interaction p", "verdict at n"),
        rows=tuple(rows),
        caption=f"{how}; +gained −lost problems{samples}; interaction p: budget by arm, against "
        "the largest n_predict. An edit's verdict is the one at the largest n_predict.",
    )


def _pass_at_k(metrics: Mapping[str, Any]) -> Table | None:
    if metrics["config"]["samples"] == 1:
        return None
    ks = range(1, metrics["config"]["samples"] + 1)
    rows = []
    for quantisation, name, found in _each(metrics):
        for n in metrics["n_predict"]:
            values = found["budgets"][str(n)]["pass_at_k"]
            shown = [k for k in ks if str(k) in values]
            cells = [values[str(k)] for k in shown]
            rows.append((f"{name}, {quantisation}, n_predict {n}", shown, cells))
    columns = rows[0][1]
    return Table(
        name="pass@k",
        title="pass@k",
        columns=tuple(f"k = {k}" for k in columns),
        rows=tuple(Row(label, tuple(_estimate(one) for one in cells)) for label, _, cells in rows),
        caption="Unbiased (Chen et al. 2021); 95% BCa bootstrap intervals over problems.",
    )


def _estimate(found: Mapping[str, Any] | None) -> Any:
    if found is None:
        return parts.MISSING
    number = Number.of(found["value"], "share", found["interval"], found["n_items"])
    return parts.number_cell(number, f"n = {found['n_items']}")


def _outcomes(metrics: Mapping[str, Any]) -> Table:
    columns, rows = parts.outcome_rows(
        (f"{name}, {quantisation}, n_predict {n}", found["budgets"][str(n)],
         {"condition": _shown(metrics, quantisation, name), "n_predict": str(n)})
        for quantisation, name, found in _each(metrics)
        for n in metrics["n_predict"]
    )  # fmt: skip
    return Table("outcomes", "Outcomes", columns, rows, caption=parts.OUTCOME_CAPTION)


def _bound_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for quantisation, name, found in _each(metrics):
        for budget in (found["comparison"] or {}).get("budgets", ()):
            yield f"{name}, {quantisation}, n_predict {budget['n_predict']}", budget


def _quality(metrics: Mapping[str, Any]) -> Table | None:
    rows = tuple(
        Row(
            quantisation,
            (
                parts.number_cell(Number(found["kl"])),
                parts.number_cell(Number(found["same_top"], "share", n=found["positions"])),
                parts.count_cell(found["positions"]),
                parts.count_cell(found["texts"]),
            ),
        )
        for quantisation, found in metrics["quality_against_f16"].items()
    )
    if not rows:
        return None
    return Table(
        name="quality",
        title="What quantisation itself does to the base, against F16",
        columns=("KL, nats", "same most probable token", "positions", "texts"),
        rows=rows,
    )


def _figures(rates: Table, differences: Table | None, metrics: Mapping[str, Any]) -> Iterator[Any]:
    last = rates.columns[-1]
    yield from _drawn(parts.plot_of(f"pass@1 at {last}", rates, last))
    if differences is not None:
        claims = [found["comparison"]["claim"] for _, _, found in _each(metrics)
                  if found["comparison"]]  # fmt: skip
        smallest = claims[0]["gate"]["smallest_effect"]
        yield from _drawn(
            parts.plot_of("Differences of pass@1", differences, "difference",
                          "the band is what does not matter", null=0.0, band=(-smallest, smallest))
        )  # fmt: skip


def _drawn(figure: Any) -> Sequence[Any]:
    return () if figure is None else (figure,)


def _notes(metrics: Mapping[str, Any], trouble: str | None) -> Iterator[str]:
    if trouble:
        yield trouble
    if metrics["escalated"]:
        steps = ", ".join(map(str, metrics["escalated"]))
        yield (
            f"Unfinished answers were continued to n_predict {steps}: they could have changed a "
            "conclusion."
        )
    for quantisation, name, found in _each(metrics):
        shown = _shown(metrics, quantisation, name)
        if found["fast"] is not None:
            fast = found["fast"]
            yield (
                f"{shown}: --fast; of {fast['compared']} texts decoded in both modes "
                f"{fast['changed']} changed within {fast['tokens']} tokens."
            )
        if found["merge"] is not None and found["merge"]["status"] != "proven":
            yield f"{shown}: the merge is unproven: {found['merge']['reason']}."
        if found["tempering"] is not None:
            yield (
                f"{shown}: largest rounding of the scaled weights "
                f"{found['tempering']['rounding']:.2g}."
            )
