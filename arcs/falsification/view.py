"""What the report shows of a falsification: claims, every number at its gate, why it may fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arcs.falsification.protocol import NAMES, NOT_RUN, Step
from arcs.falsification.report import CLAIMS, because, beside, facts_of, registered, sentences
from arcs.report import generic, parts
from arcs.report.stored import StoredRun
from arcs.report.view import Cell, ClaimCard, Number, Plot, Row, Table, View

Json = Mapping[str, Any]


def view(run: StoredRun) -> View:
    """Verdicts, steps, axes, modes. It has no transcripts: a source may have none."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    gates = tuple(_gates(metrics))
    tables = (_steps(gates), *_axes(metrics), *_beside(metrics), _modes(metrics))
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(run, metrics["registration"]["state"]),
        finished=True,
        claims=tuple(_claims(metrics)),
        notes=tuple(sentences(metrics)),
        tables=tables,
        figures=(*_figure(gates), *generic.pictures(run)),
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
    )


def _claims(metrics: Json) -> Iterator[ClaimCard]:
    for name, label in CLAIMS.items():
        claim = metrics["claims"][name]
        told = {**claim, "explanation": because(claim)}
        yield generic.card_of(told, about=f"{label}, {registered(metrics, name)}")


def _gates(metrics: Json) -> Iterator[tuple[str, Json | None, str]]:
    """Label, gate (None for a step that was not run) and state."""
    for step in metrics["steps"]:
        name = NAMES[Step(step["step"])]
        if step["state"] == NOT_RUN:
            yield name, None, NOT_RUN
        for gate in step["gates"]:
            yield f"{name}: {gate['gate']}", gate, gate["state"]


def _steps(gates: tuple[tuple[str, Json | None, str], ...]) -> Table:
    rows = tuple(
        Row(label, (_value(gate), Cell("-" if gate is None else _asked(gate)), Cell(state)))
        for label, gate, state in gates
    )
    return Table(
        "steps", "Steps", ("found", "asked", "state"), rows, head="step",
        caption="Passed, or failed, only where the whole interval is; step 1 is never evidence.",
    )  # fmt: skip


def _value(gate: Json | None) -> Cell:
    found = None if gate is None else gate["estimate"]
    if found is None:
        return parts.MISSING
    number = Number.of(found["value"], "number", found["interval"], found["n"])
    return parts.number_cell(number, f"n = {found['n']}")


def _asked(gate: Json) -> str:
    return f"{'>=' if gate['at_least'] else '<='} {gate['threshold']:g}"


def _axes(metrics: Json) -> Iterator[Table]:
    step = next(one for one in metrics["steps"] if one["step"] == Step.AXES.value)
    if step["axes"]:
        rows = tuple(
            Row(one["axis"], (_estimate(one["training"]), _estimate(one["fresh"]),
                              parts.p_cell(one["fresh"]["p_holm"]), Cell(one["state"])))
            for one in step["axes"]
        )  # fmt: skip
        columns = ("training AUC", "fresh AUC", "p (Holm)", "state")
        yield Table("axes", "Every axis", columns, rows, head="axis")


def _estimate(found: Json) -> Cell:
    return parts.number_cell(Number.of(found["value"], "number", found["interval"], found["n"]))


def _beside(metrics: Json) -> Iterator[Table]:
    """The base of an edited model."""
    if "base" in metrics:
        rows = tuple(Row(name, tuple(map(Cell, said))) for name, *said in beside(metrics))
        yield Table(
            "base", f"{metrics['base']['model']['name']}, the base, beside it", ("base", "edited"),
            rows, head="", caption="Each on its own answers; no interval is of the difference.",
        )  # fmt: skip


def _modes(metrics: Json) -> Table:
    rows = tuple(
        Row(
            one["mode"].replace("_", " "), (Cell(one["state"]), Cell(one["why"], (*facts_of(one),)))
        )
        for one in metrics["modes"]
    )
    return Table("modes", "Why it may fail", ("state", "because"), rows, head="mode")


def _figure(gates: tuple[tuple[str, Json | None, str], ...]) -> Iterator[Plot]:
    """Every AUC of steps 1, 2, 4 and 5."""
    rows = tuple(
        (label, number, None)
        for label, gate, _ in gates
        if gate is not None and gate["estimate"] is not None and "AUC" in gate["gate"]
        and (number := Number.of(gate["estimate"]["value"], "number",
                                 gate["estimate"]["interval"], gate["estimate"]["n"]))
    )  # fmt: skip
    if rows:
        yield Plot("AUC at each step", rows, null=0.5)
