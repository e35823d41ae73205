"""What the report shows of an Arc 3 run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from arcs.arc3 import view_tables as tables
from arcs.arc3.report import CLAIM_NAMES, notes, told
from arcs.arc3.sidecar import FACTS, FOLDER, TRIED
from arcs.arc3.transcripts import GATE, SET, USED
from arcs.report import generic, parts
from arcs.report.stored import StoredRun
from arcs.report.transcripts import ABSENT, Record, items_of, records_of
from arcs.report.view import Chart, ClaimCard, Number, Plot, Point, Select, Series, Table, View
from evals.statistics.calibration import risk_coverage
from evals.statistics.rates import wilson

Json = Mapping[str, Any]
PRIMARY = "the probe"
DIAGONAL = (Point(0.0, Number(0.0)), Point(1.0, Number(1.0)))
MOST_POINTS = 200
"""Of a curve."""


def view(run: StoredRun) -> View:
    """Claims, probes beside baselines and controls, the gate, transcripts."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    records = records_of(run)
    run.document(TRIED)  # so that a damaged one is one line
    asked = metrics["made_with"]["questions"]
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(
            run, metrics["backend"], f"{asked['items']}, {metrics['config']['labels']}",
            f"n_predict {asked['n_predict']}",
        ),
        finished=True,
        claims=tuple(_claims(metrics)),
        notes=(*(() if records else (ABSENT,)), *notes(metrics, run.path), *_more(metrics)),
        tables=tuple(_tables(metrics, run)),
        figures=(*_figures(metrics, records), *generic.pictures(run)),
        items=items_of(run, records),
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
    )  # fmt: skip


def _claims(metrics: Json) -> Iterator[ClaimCard]:
    kinds = metrics["kinds"] and metrics["kinds"]["fresh"]["kinds"]
    for name, label in CLAIM_NAMES.items():
        claim = metrics["claims"].get(name)
        if claim is None:
            continue
        about = label + (" (the run's verdict)" if name == "transfer" else "")
        select: Select = tables.FRESH
        if name == "gate" and "of the right" in (claim["estimate"] or {}).get("quantity", ""):
            select = {**select, "outcome": "right"}
        spoken = {**claim, "explanation": told(claim, kinds)}
        yield generic.card_of(spoken, about=about, select=select)


def _more(metrics: Json) -> Iterator[str]:
    if metrics["minimum_detectable_auc"] is not None:
        yield (
            "So many fresh items are enough to show a true AUC of "
            f"{metrics['minimum_detectable_auc']:.3f} or more."
        )
    kinds = metrics["kinds"]
    if kinds is not None and not kinds["fresh"]["tested"]:
        yield (
            "The fresh questions are of one kind, so whether what the items show is of kinds alone "
            "is not tested."
        )


def _tables(metrics: Json, run: StoredRun) -> Iterator[Table]:
    yield tables.sets(metrics)
    if metrics["probes"] is None:  # the labels allow no probe
        yield tables.decoupling(metrics)
        return
    found = (
        tables.probes(metrics), tables.baselines(metrics), tables.controls(metrics),
        tables.gate(metrics), tables.decoupling(metrics), tables.by_kind(metrics),
        tables.paper_gates(metrics), tables.layers(metrics), tables.readings(metrics),
        *tables.calibration(metrics),
    )  # fmt: skip
    yield from (one for one in found if one is not None)
    facts = run.document(f"{FOLDER}/{FACTS}")
    if facts is not None:
        yield tables.sidecar(facts)


# -- figures --------------------------------------------------------------------------------------


def _figures(metrics: Json, records: Sequence[Record]) -> Iterator[Plot | Chart]:
    if metrics["probes"] is None:
        return
    yield _aucs(metrics)
    differences = parts.plot_of(
        "AUC of the probe minus that of each baseline", tables.baselines(metrics), "probe minus it",
        "fresh items, paired, DeLong; the band is what does not matter", null=0.0,
        band=_band(metrics),
    )  # fmt: skip
    if differences is not None:
        yield differences
    scored = [
        (one["answers"][0]["score"], bool(one["answers"][0]["right"])) for one in records
        if one["facets"][SET] == "fresh" and one["facets"][USED] == "yes"
        and "score" in one["answers"][0]
    ]  # fmt: skip
    if scored:
        scores = np.array([one for one, _ in scored])
        right = np.array([one for _, one in scored])
        yield _roc(metrics, scores, right)
        yield _risk(metrics, scores, right)
    yield _calibration(metrics)
    if metrics["sweep"] is not None:
        yield _layers(metrics)


def _band(metrics: Json) -> tuple[float, float]:
    matters = metrics["claims"]["beyond_baselines"]["smallest_effect"]
    return -matters, matters


def _aucs(metrics: Json) -> Plot:
    """The probe, then the baselines, on fresh items."""
    primary = next(one for one in metrics["probes"] if one["primary"])
    found = [(PRIMARY, primary["fresh"])]
    found += [(one["name"], one["fresh"]) for one in metrics["baselines"]]
    rows = []
    for name, one in found:
        n = one["n_right"] + one["n_wrong"]
        number = Number.of(one["auc"], "number", one["interval"], n)
        assert number is not None
        rows.append((name, number, tables.FRESH))
    return Plot("AUC on fresh items", tuple(rows), null=0.5,
                caption="DeLong intervals; the line is chance.")  # fmt: skip


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """Both ends and at most :data:`MOST_POINTS` in all."""
    step = -(-len(points) // MOST_POINTS)
    return (*points[:-1:step], points[-1])


def _roc(metrics: Json, scores: Any, right: Any) -> Chart:
    """Share asserted of the right over that of the wrong, at every threshold."""
    points = [Point(0.0, Number(0.0))]
    for threshold in np.unique(scores)[::-1]:
        asserted = scores >= threshold
        y = Number(float(asserted[right].mean()))
        x = float(asserted[~right].mean())
        points.append(Point(x, y, None, f"threshold {threshold:.3f}"))
    series = [Series(PRIMARY, _thinned(points), "line"), Series("chance", DIAGONAL, "guide")]
    gate = metrics["gate"]["fresh"]
    if gate is not None:
        asserts: Select = {**tables.FRESH, GATE: "asserted"}
        at = Point(gate["p_assert_wrong"], Number(gate["p_assert_correct"]), asserts,
                   f"threshold {gate['threshold']:.3f}")  # fmt: skip
        series.append(Series("the gate", (at,), "marks"))
    return Chart("roc", "ROC on fresh items", "asserted of the wrong", "asserted of the right",
                 tuple(series), square=True,
                 caption=f"n = {len(right)}; its area is the AUC above.")  # fmt: skip


def _risk(metrics: Json, scores: Any, right: Any) -> Chart:
    """Errors among the surest answers, by how many of them are kept."""
    n, found = len(right), metrics["gate"]["risk_coverage"]
    curve = risk_coverage(scores, ~right).risk
    points = [Point((at + 1) / n, Number(float(one), "share")) for at, one in enumerate(curve)]
    marks = []
    for share, value in found["risk_at"].items():
        kept = max(1, round(float(share) * n))
        interval = wilson(round(value * kept), kept)
        number = Number(value, "share", interval.low, interval.high, interval.level, kept)
        marks.append(Point(float(share), number, None, f"the surest {float(share):.0%}"))
    return Chart(
        "risk", "Errors among the surest answers", "share of the fresh answers kept", "errors",
        (Series(PRIMARY, _thinned(points), "line"),
         Series("with Wilson intervals", tuple(marks), "marks")),
        levels=(("all answers", found["error_rate"]),),
        caption=f"n = {n}; area {found['aurc']:.3f}. A probe that knows falls to the left.",
    )  # fmt: skip


def _calibration(metrics: Json) -> Chart:
    bins = [one for one in metrics["gate"]["calibration"]["bins"] if one["n"]]
    points = []
    for one in bins:
        number = Number.of(one["rate"], "number", one["interval"], one["n"])
        assert number is not None
        says = f"probability {one['mean_probability']:.3f}, n = {one['n']}"
        points.append(Point(one["mean_probability"], number, None, says))
    return Chart(
        "calibration", "Calibration on fresh items", "probability by the probe", "right",
        (Series(PRIMARY, tuple(points)),
         Series("calibrated", DIAGONAL, "guide")),
        square=True, caption="Bins of equally many answers, Wilson intervals.",
    )  # fmt: skip


def _layers(metrics: Json) -> Chart:
    """Training and fresh AUC by layer, with what the best of permuted labels reaches."""
    found = metrics["sweep"]
    train, fresh = [], []
    for one in found["layers"]:
        train.append(Point(one["layer"], Number(one["train"]["out_of_fold_auc"]), tables.TRAIN))
        n = one["fresh"]["n_right"] + one["fresh"]["n_wrong"]
        number = Number.of(one["fresh"]["auc"], "number", one["fresh"]["interval"], n)
        assert number is not None
        fresh.append(Point(one["layer"], number, tables.FRESH))
    null = found["null_of_the_maximum"]
    return Chart(
        "layers", "AUC by layer", "layer (0: the embedding)", "AUC",
        (Series("training, out of fold", tuple(train)), Series("fresh", tuple(fresh))),
        levels=(("chance", 0.5), ("best layer of permuted labels, mean", null["null_mean"])),
        caption="Fresh: DeLong intervals. The best layer is chosen in training.",
    )  # fmt: skip
