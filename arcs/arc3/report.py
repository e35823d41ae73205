"""The result as tables for people: what was asked, what probes tell, and what follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs.arc3.sidecar import TRIED
from arcs.evaluate.report import COLOURS
from arcs.explanations import because, interval_text, p_text

Found = Mapping[str, Any]
CLAIM_NAMES = {
    "transfer": "fresh prompts",
    "beyond_baselines": "beyond baselines",
    "gate": "gate",
}


def report(metrics: Found, run: Path | None = None) -> Group:
    """All tables, then the verdict; ``run``: where the sidecar's milliseconds stand."""
    parts: list[RenderableType] = [_sets(metrics)]
    if metrics["probes"] is not None:
        parts += [_probes(metrics), _baselines(metrics), _controls(metrics), _gate(metrics)]
    parts.append(_decoupling(metrics))
    parts += [Text(line) for line in _lines(metrics, run)]
    parts.append(_verdict(metrics))
    return Group(*parts)


def _sets(metrics: Found) -> Table:
    asked = metrics["made_with"]["questions"]
    table = _table(
        f"{metrics['model']['name']} on {metrics['backend']}: {asked['items']} labelled by "
        f"{metrics['config']['labels']}, n_predict {asked['n_predict']}",
        "open: cut answers whose label more text could change; used: with a label and features",
    )
    table.add_column("set")
    for name in ("n", "used", "right", "wrong", "no label", "cut", "loops", "open", "kinds"):
        table.add_column(name, justify="right")
    for name, one in metrics["sets"].items():
        answers, labels = one["answers"], one["labels"]
        table.add_row(
            name, str(labels["n"]), str(one["used"]),
            f"{one['right']} ({_percent(one['right'], one['used'])})",
            str(one["used"] - one["right"]), str(labels["missing"]), str(answers["truncated"]),
            str(answers["loops"]), str(labels["open"]), str(len(asked[name]["groups"])),
        )  # fmt: skip
    return table


def _probes(metrics: Found) -> Table:
    primary = next(one for one in metrics["probes"] if one["primary"])
    seeds = 0 if primary["train"] is None else primary["train"]["seeds"]
    slow = min(one["train"]["seeds"] for one in metrics["probes"] if one["train"] is not None)
    table = _table(
        "Probes: AUC of right against wrong",
        f"training: {metrics['sets']['train']['used']} items, 5 folds; folds: out of "
        f"fold, all items ranked together, mean +- SD over {seeds} seeds of the folds ({slow} for "
        "the network, single layers and new kinds); new kinds: folds that "
        "leave whole kinds out; fresh: fitted on all of training, DeLong intervals, Mann-Whitney "
        "p; * declared beforehand, all others are exploratory",
    )
    table.add_column("features, probe", overflow="fold", min_width=14)
    for name in ("folds", "fold mean", "new kinds", "fresh", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in metrics["probes"]:
        star = "* " if one["primary"] else "  "
        table.add_row(
            f"{star}{one['features']}, {one['probe']}", _cv(one["train"]),
            _number(one["train"] and one["train"]["fold_mean_auc"]), _cv(one["train_grouped"]),
            _auc(one["fresh"]), p_text(one["fresh"]["p_value"]),
        )  # fmt: skip
    for layer in _shown_layers(metrics["sweep"]):
        best = layer["layer"] == metrics["sweep"]["best_in_training"]
        table.add_row(
            f"  layer {layer['layer']}{' (best in training)' if best else ''}",
            _cv(layer["train"]), _number(layer["train"]["fold_mean_auc"]), "",
            _auc(layer["fresh"]), p_text(layer["fresh"]["p_value"]),
        )  # fmt: skip
    return table


def _shown_layers(sweep: Found | None) -> list[Found]:
    """Some layers and the best one; all stand in metrics.json."""
    if sweep is None:
        return []
    rows = sweep["layers"]
    step = max(1, (len(rows) - 1) // 5)
    wanted = {*range(0, len(rows), step), len(rows) - 1, sweep["best_in_training"]}
    return [row for row in rows if row["layer"] in wanted]


def _baselines(metrics: Found) -> Table:
    table = _table(
        "Baselines: what the probe (*) must beat",
        "training: on the folds of the probe (*), all its seeds; difference: AUC of the probe "
        "minus the baseline's on fresh items, paired, DeLong intervals; p: of items, and below "
        "it by kind, the smaller one of within and between kinds (to be below half of alpha)",
    )
    table.add_column("baseline", overflow="fold", min_width=18)
    for name in ("training", "fresh", "difference", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in metrics["baselines"]:
        found = one["probe_minus_baseline"]
        table.add_row(
            one["name"], _number(one["train"]["out_of_fold_auc"]), _auc(one["fresh"]),
            "-" if found is None else _signed(found["difference"], found),
            "-" if found is None else f"{p_text(found['p_value'])}\n{_p_by_kind(found)}",
        )  # fmt: skip
    return table


def _p_by_kind(difference: Found) -> str:
    values = [difference["by_kind"][part] for part in ("within_p", "between_p")]
    known = [one for one in values if one is not None]
    return p_text(min(known)) if known else "-"


def _controls(metrics: Found) -> Table:
    table = _table(
        "Controls: what the same probe says of other labels",
        "planted: the labels written into h_last; shuffled: labels in random order; control task: "
        "every kind of question has one random label; the rest: what else h_last tells, out of "
        "fold",
    )
    table.add_column("labels", overflow="fold", min_width=24)
    table.add_column("AUC", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, one in metrics["controls"].items():
        reasons = ", ".join(one["reasons"]).replace("_", " ")
        table.add_row(f"{name}, fresh", _auc(one["fresh"]), f"{one['verdict']} ({reasons})")
    task, null = metrics["selectivity"], metrics["permutation"]
    table.add_row(
        f"control task by {task['by']}", _number(task["control_auc"]),
        f"too few kinds ({task['groups']}) to label at random" if task["selectivity"] is None else
        f"selectivity {task['selectivity']:+.3f} ({task['draws']} draws, {task['groups']} kinds)",
    )  # fmt: skip
    table.add_row(
        "real labels, training", f"{null['out_of_fold_auc']:.3f}",
        f"permuted labels: mean {null['null_mean']:.3f}, 95% {null['null_95_percent']:.3f}, "
        f"p = {p_text(null['p_value'])} ({null['permutations']})",
    )  # fmt: skip
    for one in metrics["nuisance"]:
        value = "-" if one["auc"] is None else f"{one['auc']:.3f} {interval_text(one['interval'])}"
        table.add_row(one["target"], value, one.get("why", f"{one['n_true']} of {one['n']}"))
    return table


def _gate(metrics: Found) -> Table:
    gate = metrics["gate"]
    table = _table(
        "Gate: share asserted among right and wrong answers",
        "asymmetry: wrong minus right, below zero is good; the oracle's threshold is chosen on the "
        "fresh labels themselves, on the paper's grid"
        + (", and chance passes the paper's -0.15 as often as stated" if gate["oracle"] else ""),
    )
    table.add_column("threshold", overflow="fold", min_width=22)
    for name in ("at", "right", "wrong", "asymmetry", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    chosen, fresh, oracle = gate["chosen"], gate["fresh"], gate["oracle"]
    if chosen is None:
        table.add_row("none asserts 70% of the right answers", "-", "-", "-", "-", "-")
    else:
        asymmetry = f"{chosen['asymmetry']:+.3f}"
        table.add_row("chosen out of fold, training", *_point(chosen), asymmetry, "-")
    if fresh is not None:
        table.add_row(
            "the same, fresh", *_point(fresh),
            _signed(fresh["asymmetry"], fresh), p_text(fresh["p_value"]),
        )  # fmt: skip
    if oracle is None:
        table.add_row("oracle: none asserts 70% of the right answers", "-", "-", "-", "-", "-")
    else:
        table.add_row(
            f"oracle (chance passes -0.15: {100 * oracle['null_passes_paper_gate']:.0f}%)",
            *_point(oracle), f"{oracle['asymmetry']:+.3f}", p_text(oracle["p_value"]),
        )  # fmt: skip
    return table


def _point(one: Found) -> tuple[str, str, str]:
    return (
        f"{one['threshold']:.2g}", f"{one['p_assert_correct']:.2f}", f"{one['p_assert_wrong']:.2f}"
    )  # fmt: skip


def _decoupling(metrics: Found) -> Table:
    table = _table(
        "Confidence and correctness (the paper's Table 2)",
        "asserted or hedged by the judge of delivery; with the sidecar, what its gate hedges is "
        "hedged; asymmetry: share asserted of the wrong minus of the right; right of them: of all "
        "asserted",
    )
    table.add_column("answers", overflow="fold", min_width=7)
    for name in ("right: assert", "hedge", "wrong: assert", "hedge", "asymmetry", "right of them"):
        table.add_column(name, justify="right", no_wrap=name == "asymmetry")
    rows = [
        (f"{name}{', finished' if kind == 'finished' else ''}", one)
        for name, both in metrics["decoupling"].items()
        for kind, one in both.items()
        if kind == "all" or 0 < one["n"] != both["all"]["n"]
    ]
    if metrics["sidecar"] is not None:
        rows.append(("fresh, with sidecar", metrics["sidecar"]["with"]))
    for name, one in rows:
        cells, found = one["cells"], one["asymmetry"]
        asserted = cells["cr"] + cells["cw"]
        table.add_row(
            name, *(str(cells[key]) for key in ("cr", "hr", "cw", "hw")),
            "-" if found is None else _signed(found["value"], found),
            f"{cells['cr']}/{asserted}",
        )  # fmt: skip
    return table


def _lines(metrics: Found, run: Path | None) -> list[str]:
    """What needs a sentence rather than a row."""
    lines = []
    gate = metrics["gate"]
    if gate is not None:
        fit, risk = gate["calibration"], gate["risk_coverage"]
        at = ", ".join(f"{float(c):.0%}: {value:.3f}" for c, value in risk["risk_at"].items())
        lines.append(
            f"Calibration on fresh items: Brier {fit['brier']:.3f} (always the base rate: "
            f"{fit['brier_of_base_rate']:.3f}), ECE {fit['ece']:.3f}. Errors among the surest "
            f"answers, by coverage: {at} (AURC {risk['aurc']:.3f}, n = {risk['n']})."
        )
        lines.append(
            "The paper's gates: "
            + "; ".join(
                f"{one['gate']} {_number(one['value'])} against {one['threshold']:g}: "
                f"{one['state']}"
                for one in metrics["paper_gates"]
            )
            + "."
        )
        detectable = metrics["minimum_detectable_auc"]
        if detectable is not None:
            lines.append(
                f"So many fresh items are enough to show a true AUC of {detectable:.3f} or more."
            )
    if metrics["sweep"] is not None:
        null = metrics["sweep"]["null_of_the_maximum"]
        lines.append(
            f"Best of {len(metrics['sweep']['layers'])} layers in training: {null['largest']:.3f}; "
            f"best of permuted labels: {null['null_mean']:.3f} on average, p = "
            f"{p_text(null['p_value'])} ({null['permutations']} permutations)."
        )
    lines += _by_kind(metrics) + _readings(metrics) + _compared(metrics) + _tried(metrics, run)
    return lines + _doubtful(metrics)


def notes(metrics: Found, run: Path | None) -> list[str]:
    """What no table says: other engines, the sidecar at work, what is left out or doubtful."""
    return _compared(metrics) + _tried(metrics, run) + _doubtful(metrics)


def _doubtful(metrics: Found) -> list[str]:
    """What the tables leave out, or rest on without right."""
    lines = []
    without = {name: one["without_features"] for name, one in metrics["sets"].items()}
    if any(without.values()):
        listed = ", ".join(f"{name} {n}" for name, n in without.items())
        lines.append(
            f"Labelled answers without the position {metrics['config']['position']}, left out of "
            f"everything: {listed}."
        )
    delivery = metrics["made_with"].get("delivery")
    if delivery is not None and not delivery["passes"]:
        lines.append(
            "The judge of delivery is below its bar on its own references: who asserts and who "
            "hedges is not established."
        )
    return lines


def _by_kind(metrics: Found) -> list[str]:
    """The item figures again, of pairs within kinds and of whole kinds."""
    found = metrics["kinds"]
    if found is None:
        return []
    if not found["fresh"]["tested"]:
        return [
            "The fresh questions are of one kind, so whether what the items show is of kinds alone "
            "is not tested."
        ]
    lines = []
    for name, what in (("fresh", "Fresh AUC"), ("gate", "AUC of the gate's fresh decisions")):
        one = found[name]
        if one is None:
            continue
        within, between = one["within"], one["between"]
        lines.append(
            f"{what} within kinds (right and wrong answers of one kind): "
            + (
                "no kind has both"
                if within is None
                else f"{within['auc']:.3f}, p = {p_text(within['p_value'])}, "
                f"{within['pairs']} pairs in {within['kinds']} kinds"
            )
            + "; between kinds (their mean ranks): "
            + (
                "no two differ"
                if between is None
                else f"{between['auc']:.3f}, p = {p_text(between['p_value'])}, "
                f"n = {between['kinds']} kinds"
            )
            + f"; {one['permutations']} permutations of labels, of kinds."
        )
    return lines


def _readings(metrics: Found) -> list[str]:
    if not metrics["ways"]:
        return []
    shown = "; ".join(f"{one['way']}: {_number(one['auc'])} (n = {one['n']})"
                      for one in metrics["ways"])  # fmt: skip
    return [f"Fresh AUC if cut answers are taken otherwise: {shown}."]


def _compared(metrics: Found) -> list[str]:
    one = metrics["beside"]
    if one is None:
        return []
    apart, auc = one["relative_distance"], one["auc"]
    line = (
        f"The same ids read by {one['other']}: h_last {apart['median']:.1e} apart at the median, "
        f"{apart['largest']:.1e} at most (relative, n = {one['n']})"
    )
    if auc is not None:
        interval = "" if auc["interval"] is None else f" {interval_text(auc['interval'])}"
        line += (
            f"; fresh AUC {auc['this']:.4f} here, {auc['other']:.4f} there, difference "
            f"{auc['difference']:+.4f}{interval}"
        )
    return [line + "."]


def _tried(metrics: Found, run: Path | None) -> list[str]:
    one = metrics.get("end_to_end")
    if one is None:
        return []
    apart = one["largest_difference_of_p"]
    line = (
        f"The sidecar at work on {one['n']} fresh questions: {one['asserted']} asserted; of "
        f"{one['compared']} with the very answers of the analysis {one['same_decision']} decided "
        "as there" + ("" if apart is None else f" (p apart by at most {apart:.1e})")
    )
    if run is not None and (run / TRIED).is_file():
        ms = json.loads((run / TRIED).read_text())["milliseconds"]
        line += (
            f"; {ms['reading'] + ms['scoring']:.2f} ms behind the last token of an answer that "
            f"takes {ms['generating_without']:.0f} ms (medians{_of(ms)})"
        )
    return [line + "."]


def _of(ms: Found) -> str:
    """How many a median is of; runs from before the count was kept have none."""
    return f" of {ms['n']}, after one to warm up" if "n" in ms else ""


def _verdict(metrics: Found) -> Panel:
    claims = metrics["claims"]
    text = Text()
    for name, label in CLAIM_NAMES.items():
        if name not in claims:
            continue
        one = claims[name]
        if text:
            text.append("\n")
        reasons = ", ".join(one["reasons"]).replace("_", " ")
        text.append(f"{label}: ")
        text.append(one["verdict"], style=COLOURS[one["verdict"]])
        kinds = metrics["kinds"] and metrics["kinds"]["fresh"]["kinds"]
        text.append(f" ({reasons}). Claim: {one['statement']}. {told(one, kinds)}")
    return Panel(text, title="Verdict", title_align="left")


def told(claim: Found, kinds: int | None) -> str:
    """A claim's number and why it came out so; ``kinds``: of the fresh questions."""
    return because(claim).replace("so few kinds", f"{kinds} kinds")


def _cv(one: Found | None) -> str:
    if one is None:
        return "-"
    sd = one["sd_over_seeds"]
    return f"{one['out_of_fold_auc']:.3f}" + ("" if sd is None else f"\n+- {sd:.3f}")


def _auc(one: Found) -> str:
    return f"{one['auc']:.3f}\n{interval_text(one['interval'])}"


def _signed(value: float, one: Found) -> str:
    return f"{value:+.3f}\n{interval_text(one['interval'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "-"


def _table(title: str, caption: str) -> Table:
    return Table(
        title=escape(title), caption=caption, box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
