"""Tables of an Arc 3 report. Every number leads to the answers behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.arc3.transcripts import GATE, SET, USED
from arcs.report import parts
from arcs.report.view import Cell, Number, Row, Select, Table

Json = Mapping[str, Any]
FRESH: Select = {SET: "fresh", USED: "yes"}
TRAIN: Select = {SET: "train", USED: "yes"}
CELLS: Mapping[str, tuple[str, str]] = {
    "cr": ("right", "asserted"), "hr": ("right", "hedged"), "cw": ("wrong", "asserted"),
    "hw": ("wrong", "hedged"),
}  # fmt: skip
CELL_NAMES = ("right: asserted", "right: hedged", "wrong: asserted", "wrong: hedged")


def sets(metrics: Json) -> Table:
    """What was asked, and what of it is used."""
    asked, rows = metrics["made_with"]["questions"], []
    for name, one in metrics["sets"].items():
        answers, labels, n = one["answers"], one["labels"], one["labels"]["n"]
        of: Select = {SET: name}
        used: Select = {SET: name, USED: "yes"}
        right = Number.of(one["right"] / one["used"] if one["used"] else None, "share", None,
                          one["used"])  # fmt: skip
        cells = (
            parts.count_cell(n, select=of),
            parts.count_cell(one["used"], n=n, select=used),
            parts.number_cell(right, f"{one['right']}/{one['used']}",
                              select=parts.passed_of(used, "right", one["right"])),
            parts.count_cell(labels["missing"], n=n, select={**of, "outcome": "no label"}),
            parts.count_cell(answers["truncated"], n=n, select={**of, "cut": parts.CUTS}),
            parts.count_cell(answers["loops"], n=n, select={**of, "cut": "loop"}),
            parts.count_cell(labels["open"], n=n, select={**of, "open": "yes"}),
            parts.count_cell(len(asked[name]["groups"])),
        )  # fmt: skip
        rows.append(Row(name, cells))
    return Table(
        "sets", "Questions and answers",
        ("n", "used", "right of them", "no label", "cut", "loops", "open", "kinds"), tuple(rows),
        head="set",
        caption="Used: with a label and features; open: cut answers whose label more text could "
        "change; kinds of question, of which fresh has none that training has.",
    )  # fmt: skip


def auc(found: Json | None, select: Select | None) -> Cell:
    """An AUC with its interval and n."""
    if found is None:
        return parts.MISSING
    n = found["n_right"] + found["n_wrong"]
    return parts.number_cell(Number.of(found["auc"], "number", found["interval"], n), select=select)


def _folds(found: Json | None, key: str = "out_of_fold_auc") -> Cell:
    if found is None:
        return parts.MISSING
    sd = found["sd_over_seeds"]
    spread = () if sd is None or key != "out_of_fold_auc" else (f"± {sd:.3f} over seeds",)
    return parts.number_cell(Number.of(found[key]), *spread, select=TRAIN)


def probes(metrics: Json) -> Table:
    """Every probe, the declared one first."""
    rows = tuple(
        Row(
            f"{one['features']}, {one['probe']}",
            (
                auc(one["fresh"], FRESH),
                parts.p_cell(one["fresh"]["p_value"]),
                _folds(one["train"]),
                _folds(one["train"], "fold_mean_auc"),
                _folds(one["train_grouped"]),
            ),
            "declared beforehand" if one["primary"] else "exploratory",
        )
        for one in metrics["probes"]
    )
    return Table(
        "probes", "Probes: AUC of right against wrong",
        ("fresh", "p", "training, out of fold", "fold mean", "new kinds"), rows,
        head="features, probe",
        caption="Fresh: fitted on all of training, DeLong intervals, Mann-Whitney p; out of fold: "
        "5 folds, all items ranked together; new kinds: folds that leave whole kinds out.",
    )  # fmt: skip


def layers(metrics: Json) -> Table | None:
    """Every layer alone."""
    found = metrics["sweep"]
    if found is None:
        return None
    best, null = found["best_in_training"], found["null_of_the_maximum"]
    rows = tuple(
        Row(
            f"layer {one['layer']}",
            (_folds(one["train"]), auc(one["fresh"], FRESH),
             parts.p_cell(one["fresh"]["p_value"])),
            "best in training" if one["layer"] == best else "",
        )
        for one in found["layers"]
    )  # fmt: skip
    return Table(
        "layers", "Every layer alone", ("training, out of fold", "fresh", "p"), rows, head="layer",
        folded=True,
        caption=f"Best in training {null['largest']:.3f}; best of permuted labels "
        f"{null['null_mean']:.3f} on average, p = {null['p_value']:.2g} ({null['permutations']} "
        "permutations). Layer 0 is the embedding.",
    )  # fmt: skip


def baselines(metrics: Json) -> Table:
    """What the probe must beat."""
    rows = []
    for one in metrics["baselines"]:
        found = one["probe_minus_baseline"]
        n = one["fresh"]["n_right"] + one["fresh"]["n_wrong"]
        apart = None if found is None else Number.of(found["difference"], "number",
                                                     found["interval"], n)  # fmt: skip
        kinds = {} if found is None else found["by_kind"]
        rows.append(
            Row(
                one["name"],
                (
                    auc(one["fresh"], FRESH),
                    parts.number_cell(apart, select=FRESH, sign=True),
                    parts.p_cell(None if found is None else found["p_value"]),
                    parts.p_cell(kinds.get("within_p")),
                    parts.p_cell(kinds.get("between_p")),
                    _folds(one["train"]),
                ),
                "" if one["fitted"] else "fitted on nothing",
            )
        )
    return Table(
        "baselines", "Baselines: what the probe must beat",
        ("fresh", "probe minus it", "p", "p within kinds", "p between kinds",
         "training, out of fold"),
        tuple(rows), head="baseline",
        caption="Probe minus it: difference of the AUC on fresh items, paired, DeLong; p by kind: "
        "scores exchanged within kinds, or for whole kinds (to be below half of alpha).",
    )  # fmt: skip


def controls(metrics: Json) -> Table:
    """What the same probe says of other labels."""
    rows = []
    for name, one in metrics["controls"].items():
        reasons = ", ".join(one["reasons"]).replace("_", " ")
        cell = Cell(one["verdict"], (reasons,) if reasons else (), tone=one["verdict"])
        rows.append(Row(f"{name} labels, fresh", (auc(one["fresh"], FRESH), cell, Cell("-"))))
    null, task = metrics["permutation"], metrics["selectivity"]
    told = (
        f"too few kinds ({task['groups']}) to label at random" if task["selectivity"] is None
        else f"selectivity {task['selectivity']:+.3f} ({task['draws']} draws, {task['groups']} "
        "kinds)"
    )  # fmt: skip
    rows += [
        Row(
            "real labels, training",
            (
                parts.number_cell(Number.of(null["out_of_fold_auc"]), select=TRAIN), Cell("-"),
                Cell(f"permuted labels: mean {null['null_mean']:.3f}, 95% "
                     f"{null['null_95_percent']:.3f}, p = {null['p_value']:.2g} "
                     f"({null['permutations']})"),
            ),
        ),
        Row(
            f"random label by {task['by']}, training",
            (parts.number_cell(Number.of(task["control_auc"]), select=TRAIN), Cell("-"),
             Cell(told)),
        ),
    ]  # fmt: skip
    for one in metrics["nuisance"]:
        number = Number.of(one["auc"], "number", one.get("interval"), one.get("n"))
        told = one.get("why") or f"{one['n_true']} of {one['n']}"
        rows.append(Row(one["target"], (parts.number_cell(number, select={USED: "yes"}), Cell("-"),
                                        Cell(told))))  # fmt: skip
    return Table(
        "controls", "Controls: what the same probe says of other labels",
        ("AUC", "verdict", "beside it"), tuple(rows), head="labels",
        caption="Planted: the labels written into h_last, which must come out SUPPORTED; shuffled: "
        "in random order, which must not; random label by kind: what telling kinds apart gives; "
        "the rest: what else h_last tells, out of fold.",
    )  # fmt: skip


def gate(metrics: Json) -> Table:
    """Share asserted among right and wrong answers."""
    found, rows = metrics["gate"], []
    chosen, fresh, oracle = found["chosen"], found["fresh"], found["oracle"]
    train = metrics["sets"]["train"]
    if chosen is not None:
        rows.append(Row("training, out of fold, where the threshold was chosen", _point(
            chosen, TRAIN, train["right"], train["used"] - train["right"])))  # fmt: skip
    if fresh is not None:
        rows.append(Row("fresh, at the same threshold", _point(fresh, FRESH, fresh["correct"],
                                                               fresh["wrong"])))  # fmt: skip
    if oracle is not None:
        detail = f"chance passes -0.15 in {100 * oracle['null_passes_paper_gate']:.0f}%"
        rows.append(Row("fresh, oracle: chosen on its own labels", _point(oracle, None, None, None),
                        detail))  # fmt: skip
    kept = [] if chosen is not None else ["no threshold asserts 70% of the right answers"]
    kept += [] if oracle is not None else ["no oracle's threshold does"]
    return Table(
        "gate", "Gate", ("threshold", "asserted of the right", "asserted of the wrong",
                         "asymmetry", "p"), tuple(rows), head="answers",
        caption="Asymmetry: asserted of the wrong minus of the right, below zero is good; "
        "Newcombe's interval, Fisher's exact p. Rule: " + "; ".join([found["rule"], *kept]) + ".",
    )  # fmt: skip


def _point(one: Json, select: Select | None, right: int | None, wrong: int | None
           ) -> tuple[Cell, ...]:  # fmt: skip
    def share(value: float, outcome: str, n: int | None) -> Cell:
        if select is None or not n:
            return parts.number_cell(Number.of(value, "share", None, n))
        of = {**select, "outcome": outcome}
        count = round(value * n)
        return parts.number_cell(Number.of(value, "share", None, n), f"{count}/{n}",
                                 select={**of, GATE: "asserted"} if count else of)  # fmt: skip

    return (
        parts.number_cell(Number.of(one["threshold"])),
        share(one["p_assert_correct"], "right", right),
        share(one["p_assert_wrong"], "wrong", wrong),
        parts.number_cell(Number.of(one["asymmetry"], "number", one.get("interval")), sign=True,
                          select=select),
        parts.p_cell(one.get("p_value")),
    )  # fmt: skip


def decoupling(metrics: Json) -> Table:
    """Confidence and correctness (the paper's Table 2)."""
    rows = []
    for name, both in metrics["decoupling"].items():
        for kind, one in both.items():
            if kind == "all" or 0 < one["n"] != both["all"]["n"]:
                select: Select = {SET: name, USED: "yes"}
                if kind == "finished":
                    select = {**select, "cut": ("finished", "loop")}
                label = f"{name}{', finished' if kind == 'finished' else ''}"
                rows.append(Row(label, _two_by_two(one, select)))
    if metrics["sidecar"] is not None:
        rows.append(Row("fresh, with sidecar", _with_sidecar(metrics["sidecar"]["with"])))
    return Table(
        "decoupling", "Confidence and correctness (the paper's Table 2)",
        (*CELL_NAMES, "asymmetry", "right of all asserted"), tuple(rows), head="answers",
        caption="Asserted or hedged by the judge of delivery; with the sidecar, what its gate "
        "hedges is hedged; finished: not cut, or cut in a loop.",
    )  # fmt: skip


def _two_by_two(one: Json, select: Select) -> tuple[Cell, ...]:
    cells = tuple(
        parts.count_cell(one["cells"][name], n=one["n"],
                         select={**select, "outcome": outcome, "delivery": delivery})
        for name, (outcome, delivery) in CELLS.items()
    )  # fmt: skip
    return (*cells, *_rates(one, {**select, "delivery": "asserted"}))


def _with_sidecar(one: Json) -> tuple[Cell, ...]:
    """Hedged is what either hedges, which is no one filter: those counts lead nowhere."""
    asserted: Select = {**FRESH, "delivery": "asserted", GATE: "asserted"}
    cells = tuple(
        parts.count_cell(
            one["cells"][name], n=one["n"],
            select={**asserted, "outcome": outcome} if delivery == "asserted" else None,
        )
        for name, (outcome, delivery) in CELLS.items()
    )  # fmt: skip
    return (*cells, *_rates(one, asserted))


def _rates(one: Json, asserted: Select) -> tuple[Cell, Cell]:
    cells, found = one["cells"], one["asymmetry"] or {"value": None, "interval": None}
    n = cells["cr"] + cells["cw"]
    share = Number.of(cells["cr"] / n if n else None, "share", None, n)
    select = {**asserted, "outcome": "right" if cells["cr"] else "wrong"}
    return (
        parts.number_cell(Number.of(found["value"], "number", found["interval"]), sign=True),
        parts.number_cell(share, f"{cells['cr']}/{n}", select=select),
    )


def by_kind(metrics: Json) -> Table | None:
    """The item figures again, of pairs within kinds and of whole kinds."""
    found, rows = metrics["kinds"], []
    if found is None:
        return None
    for name, what in (("fresh", "fresh AUC"), ("gate", "the gate's decisions, AUC")):
        one = found[name]
        if one is None or not one["tested"]:
            continue
        for part in ("within", "between"):
            its = one[part]
            cells = (
                (Cell("-"),) * 4 if its is None
                else (
                    parts.number_cell(Number.of(its["auc"]), select=FRESH),
                    parts.p_cell(its["p_value"]),
                    parts.count_cell(its["kinds"]),
                    parts.count_cell(its["pairs"]),
                )
            )  # fmt: skip
            rows.append(Row(f"{what}, {part} kinds", cells))
    if not rows:
        return None
    return Table(
        "kinds", "Within kinds of question, and between them", ("AUC", "p", "kinds", "pairs"),
        tuple(rows),
        caption="Within: pairs of a right and a wrong answer of one kind; between: each kind has "
        "its mean rank. p: labels, or whole kinds, permuted.",
    )  # fmt: skip


def paper_gates(metrics: Json) -> Table:
    """The paper's own gates."""
    rows = tuple(
        Row(
            one["gate"],
            (
                parts.number_cell(Number.of(one["value"], "number", one["interval"])),
                Cell(f"{one['threshold']:g}"),
                Cell(one["state"]),
            ),
        )
        for one in metrics["paper_gates"]
    )
    return Table("paper gates", "The paper's gates", ("found", "asked", "state"), rows, head="gate",
                 caption="Passed, or failed, only where the whole interval is.")  # fmt: skip


def readings(metrics: Json) -> Table | None:
    """If cut answers are taken otherwise."""
    rows = tuple(
        Row(one["way"], (parts.number_cell(Number.of(one["auc"], n=one["n"])),
                         parts.count_cell(one["n"])))
        for one in metrics["ways"] or ()
    )  # fmt: skip
    if not rows:
        return None
    return Table("cut answers", "If cut answers are taken otherwise", ("fresh AUC", "n"), rows,
                 folded=True)  # fmt: skip


def calibration(metrics: Json) -> Iterator[Table]:
    """How sure the probe is, and of what it errs."""
    fit, risk = metrics["gate"]["calibration"], metrics["gate"]["risk_coverage"]
    n = risk["n"]
    rows = [
        Row("Brier score", (parts.number_cell(Number.of(fit["brier"], "number",
                                                        fit["brier_interval"], n), select=FRESH),),
            f"always the base rate: {fit['brier_of_base_rate']:.3f}"),
        Row("expected calibration error", (parts.number_cell(Number.of(fit["ece"], n=n)),)),
        *(Row(f"errors among the surest {float(share):.0%}",
              (parts.number_cell(Number.of(value, "share", None, max(1, round(float(share) * n)))),
               ))
          for share, value in risk["risk_at"].items()),
        Row("area under risk and coverage", (parts.number_cell(Number.of(risk["aurc"])),)),
    ]  # fmt: skip
    yield Table("calibration", "Calibration on fresh items", ("value",), tuple(rows),
                caption="Of the probability that the probe gives.", folded=True)  # fmt: skip


def sidecar(facts: Json) -> Table:
    """The sidecar that the run left."""
    shown: Sequence[tuple[str, str]] = (
        ("probe", f"{facts['probe']} of {facts['features']}"),
        ("fitted on", f"{facts['n_train']} answers to {facts['items']}, states of "
                      f"{facts['engine']}"),
        ("asserts from a probability of", f"{facts['threshold']:.3g}"),
        ("hedges with", facts["hedge"]),
    )  # fmt: skip
    rows = tuple(Row(name, (Cell(text),)) for name, text in shown)
    return Table("sidecar", "The sidecar", ("",), rows, folded=True,
                 caption="In sidecar/; threearc sidecar answer asks with it.")  # fmt: skip
