"""What the report shows of an Arc 2 run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arcs.arc2 import view_tables as tables
from arcs.arc2.selection import BASE, BOTTOM, TOP
from arcs.arc2.view_items import ablated, head_name, items
from arcs.report import generic, parts
from arcs.report.stored import StoredRun
from arcs.report.transcripts import ABSENT, records_of
from arcs.report.view import Chart, ClaimCard, Number, Plot, Point, Select, Series, Table, View

Json = Mapping[str, Any]


def view(run: StoredRun) -> View:
    """Claim and words, heads with their nulls, the sweep, transcripts."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    records = records_of(run)
    made = metrics["made_with"]
    figures = (*_sweeps(metrics), _ranking(metrics), _first_heads(metrics))
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(
            run, metrics["disposition"]["name"], f"{made['backend']} {metrics['config']['dtype']}",
            f"labels: {made['labels']['labels']}", f"{metrics['prompts']['swept']} prompts swept",
        ),
        finished=True,
        claims=(_claim(metrics),),
        notes=(*(() if records else (ABSENT,)), *_notes(metrics)),
        tables=tuple(_tables(metrics)),
        figures=(*(one for one in figures if one is not None), *generic.pictures(run)),
        items=items(run, metrics, records, _ablated_heads(metrics)) if records else (),
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
    )  # fmt: skip


def _tables(metrics: Json) -> Iterator[Table]:
    yield tables.words(metrics)
    yield tables.axis(metrics)
    yield from tables.answer_tables(metrics["sweep"])
    yield from tables.tasks(metrics)
    if metrics["gguf"]:
        yield from tables.answer_tables(
            metrics["gguf"]["points"], f"llama.cpp {metrics['gguf']['quantisation']}", "gguf."
        )
    yield from tables.rankings(metrics)
    yield tables.baseline(metrics)
    beside = tables.evidence(metrics)
    if beside is not None:
        yield beside
    yield tables.measures(metrics)


def _claim(metrics: Json) -> ClaimCard:
    """The claim, with the change of the axis at the strongest lambda of the chosen heads."""
    card = generic.card_of(metrics["claim"], about="the run's verdict")
    swept = [one for one in metrics["sweep"] if one["arm"] == TOP and one["axis_change"]]
    facts = [("damped", " ".join(head_name(one) for one in metrics["selection"]["arms"][TOP]))]
    for state in ("holds", "excluded"):
        names = [one["word"] for one in metrics["words"] if one["state"] == state]
        facts.append((state, ", ".join(names) or "none of the words"))
    number, p_value, select = None, None, None
    if swept:
        strongest = min(swept, key=lambda one: one["lambda"])
        found = strongest["axis_change"]
        number = Number.of(found["value"], tables.axis_units(metrics)[1], found["interval"],
                           found["n"])  # fmt: skip
        p_value, select = found["p_adjusted"], tables.axis_behind(strongest, metrics)
        facts.insert(0, ("number", f"change of {metrics['axis']['measure']} at lambda "
                                   f"{strongest['lambda']:g}, against lambda 1"))  # fmt: skip
    return ClaimCard(
        card.statement, card.verdict, card.reasons, card.explanation, card.about, number, p_value,
        select, tuple(facts),
    )  # fmt: skip


def _notes(metrics: Json) -> Iterator[str]:
    axis, used = metrics["axis"], metrics["prompts"]
    yield f"Axis of the sweep: {axis['measure']}" + (f" ({axis['why']})." if axis["why"] else ".")
    shared = used["chosen_on_same"]
    if shared:
        yield f"The heads were chosen on {shared} of the {used['swept']} prompts of the sweep."
    if metrics["gguf"]:
        yield (
            "Through llama.cpp every lambda, 1 included, has the scaled tensors in one storage "
            f"form (largest rounding {metrics['gguf']['rounding']:.1e}); untouched: the file as it "
            "is. Its intervals are against lambda 1 there."
        )
    judge = metrics["judge"]
    if judge is not None and judge["failing"]:
        yield f"The judge is below its bar in {', '.join(judge['failing'])}."


# -- figures --------------------------------------------------------------------------------------


def _sweeps(metrics: Json) -> Iterator[Chart | None]:
    """Axis and content over lambda, the chosen heads beside the controls."""
    _, unit = tables.axis_units(metrics)
    smallest = metrics["axis"]["smallest"]
    caption = "against lambda 1; intervals hold for all lambdas of an arm at once; the band is "
    yield _sweep(
        metrics, "axis over lambda", f"Axis over lambda: {metrics['axis']['measure']}",
        ("axis_change",), unit, smallest,
        f"Change of the axis ({metrics['axis']['unit']}) {caption}what does not matter.",
    )  # fmt: skip
    rates = any(one["accuracy_change"] for one in metrics["sweep"])
    gates = metrics["made_with"]["gates"]["smallest_effect"]
    yield _sweep(
        metrics, "content over lambda",
        "Content over lambda: " + ("accuracy" if rates else "likelihood of the meter's texts"),
        ("accuracy_change",) if rates else ("likelihood_change",), "points" if rates else "nats",
        gates["rate"] if rates else gates["loss"],
        f"Change of the content {caption}what does not matter.",
    )  # fmt: skip


def _sweep(
    metrics: Json, name: str, title: str, keys: tuple[str, ...], unit: Any, smallest: float,
    caption: str,
) -> Chart | None:  # fmt: skip
    (key,) = keys
    arms: dict[str, list[Point]] = {}
    for point in metrics["sweep"]:
        found = point[key]
        if point["arm"] == BASE or found is None:
            continue
        number = Number.of(found["value"], unit, found["interval"], found["n"])
        assert number is not None
        select: Select = (
            tables.axis_behind(point, metrics) if key == "axis_change" else tables.behind(point)
        )
        arms.setdefault(point["arm"], []).append(Point(point["lambda"], number, select))
    if not arms:
        return None
    start = Point(1.0, Number(0.0, unit), None, "unchanged")
    return Chart(
        name, title, "lambda", "change",
        tuple(
            Series(arm, tuple(sorted((start, *found), key=lambda one: one.x)))
            for arm, found in arms.items()
        ),
        band=(-smallest, smallest),
        caption=caption,
    )  # fmt: skip


def _ranking(metrics: Json) -> Chart | None:
    """All heads in order, with what the largest of noise reaches."""
    ranking = metrics["rankings"][metrics["selection"]["ranked_by"]]
    heads = ranking["heads"]
    key = "statistic" if all(one.get("statistic") is not None for one in heads) else "effect"
    causal = ranking["method"] == "causal"
    places = {(one["layer"], one["head"]): at for at, one in enumerate(heads, start=1)}

    def at(head: tuple[int, int], *, linked: bool) -> Point:
        place = places[head]
        select: Select | None = {"condition": ablated(head)} if linked and causal else None
        return Point(float(place), Number(heads[place - 1][key]), select, head_name(head))

    marked = [
        Series(f"{arm} heads", tuple(at(tuple(one), linked=True) for one in chosen), "marks")
        for arm in (TOP, BOTTOM)
        if (chosen := metrics["selection"]["arms"].get(arm))
    ]
    critical, expected = ranking["critical"], ranking["expected_maximum"]
    level = f"{100 * metrics['alpha']:g}% level of the largest of noise"
    levels = [("largest of noise, expected", expected), (level, critical)]
    if "|" in ranking["null"]:  # of either sign
        levels.append((f"{level}, negative", -critical))
    return Chart(
        "heads", f"All {len(heads)} heads by {ranking['method']} attribution", "rank",
        "mean shift over its error" if key == "statistic" else ranking["unit"],
        (Series("heads", tuple(at(one, linked=False) for one in places), "line"), *marked),
        levels=tuple(levels),
        caption=f"p of a head: {ranking['null']}.",
    )  # fmt: skip


def _first_heads(metrics: Json) -> Plot | None:
    """The first heads' effects with their intervals, one head at a time."""
    ranking = metrics["rankings"][metrics["selection"]["ranked_by"]]
    table = next(one for one in tables.rankings(metrics))
    return parts.plot_of(
        f"First heads by {ranking['method']} attribution", table, "effect",
        f"{ranking['unit']}; intervals are for one head at a time", null=0.0,
    )  # fmt: skip


def _ablated_heads(metrics: Json) -> list[tuple[int, int]]:
    """Heads whose ablations a number leads to: those with a row, and the damped ones."""
    ranking = metrics["rankings"].get("causal")
    if ranking is None:
        return []
    shown = [(one["layer"], one["head"]) for one in tables.shown_heads(ranking)]
    arms = metrics["selection"]["arms"]
    chosen = [tuple(one) for arm in (TOP, BOTTOM) for one in arms.get(arm, ())]
    return list(dict.fromkeys([*shown, *chosen]))
