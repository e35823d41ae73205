"""The result for people: five steps, the modes of failing, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs import explanations
from arcs.claims import ReasonCode
from arcs.estimates import GateState
from arcs.evaluate.report import COLOURS
from arcs.explanations import interval_text, p_text
from arcs.falsification.protocol import NAMES, NOT_RUN, Step

Found = Mapping[str, Any]
_OWN = {
    ReasonCode.UNFINISHED_ANSWERS: "a step is passed, or failed, as the answers stand, but not for "
    "every way that cut ones could have ended; raise n_predict",
    ReasonCode.NOT_REPLICATED: "step 5 has not passed",
    ReasonCode.FINISH_REASONS_UNKNOWN: "how the answers ended is not known: give finish_reason "
    "with --responses, or state --untruncated",
    ReasonCode.UNDERPOWERED: "too few items to put every number on one side of its gate",
    ReasonCode.EFFECT_SHOWN: "every gate is passed",
    ReasonCode.EFFECT_EXCLUDED: "the whole interval is on the wrong side of the gate",
}
CLAIMS = {"all_five": "all five steps", "this_model": "this model"}


def report(metrics: Found) -> Group:
    """All tables, then the verdict."""
    parts: list[RenderableType] = [_steps(metrics), _modes(metrics)]
    axes = next(one for one in metrics["steps"] if one["step"] == Step.AXES.value)
    if axes["axes"]:
        parts.append(_axes(axes))
    if "base" in metrics:
        parts.append(_beside(metrics))
    parts += [Text(line) for line in sentences(metrics)]
    parts.append(_verdict(metrics))
    return Group(*parts)


def _steps(metrics: Found) -> Table:
    sets = metrics["sets"]
    table = _table(
        f"{metrics['model']['name']}: {metrics['axis']} or not, "
        f"{_counts(sets['train'])} training and {_counts(sets['fresh'])} fresh items",
        "a step is passed, or failed, only where whole intervals are (the share asserted by its "
        "estimate; all but step 2's AUC fail by wider ones, for their number); step 1 is never "
        "evidence; asymmetry: share asserted of the wrong minus of the "
        "right, at the threshold from training",
    )
    table.add_column("step", overflow="fold", min_width=13)
    table.add_column("gate", overflow="fold", min_width=14)
    table.add_column("found", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold", min_width=9)
    for step in metrics["steps"]:
        name = NAMES[Step(step["step"])]
        if step["state"] == NOT_RUN:
            table.add_row(name, "", "", "", NOT_RUN)
            continue
        gates = step["gates"]
        if step["step"] == Step.AXES.value:
            passing = f"{step['passing']} of {len(step['axes'])} axes pass"
            table.add_row(name, passing, "", "", step["state"])
            gates, name = [one for one in gates if one["state"] != "passed"][:6], ""
        for place, gate in enumerate(gates):
            table.add_row(name if place == 0 else "", *_gate(gate))
    return table


def _gate(gate: Found) -> tuple[str, str, str, str]:
    asked = f"{'>=' if gate['at_least'] else '<='} {gate['threshold']:g}"
    found = gate["estimate"]
    shown = "-" if found is None else f"{found['value']:.3f}\n{interval_text(found['interval'])}"
    if found is not None and _only_nearly_failed(gate):
        shown += f"\nwider:\n{interval_text(gate['fails_by'])}"
    why_not = f"\n{gate['why']}" if gate["why"] else ""
    return (
        escape(f"{gate['gate']} {asked}{why_not}"), shown,
        "-" if found is None else str(found["n"]), gate["state"],
    )  # fmt: skip


def _only_nearly_failed(gate: Found) -> bool:
    """Whether the interval that is shown lies beyond the gate, and the one by which it fails, which
    is wider for the number of gates, does not."""
    interval, asked = gate["estimate"]["interval"], gate["threshold"]
    beyond = interval["high"] < asked if gate["at_least"] else interval["low"] > asked
    return bool(beyond and gate["state"] == GateState.NOT_DECIDABLE.value and gate["fails_by"])


def _axes(step: Found) -> Table:
    table = _table(
        "Every axis",
        "p: Mann-Whitney on fresh items, Holm over axes; its labels: AUC on fresh items of the "
        "first axis's probe on this axis's labels; r: of out-of-fold scores with the first axis",
    )
    table.add_column("axis", overflow="fold", min_width=9)
    for name in ("training", "fresh", "its labels", "r"):
        table.add_column(name, justify="right", no_wrap=True)
    main = step["axes"][0]["axis"]
    for one in step["axes"]:
        pair = next((c for c in step["correlations"] if c["axes"] == [main, one["axis"]]), None)
        table.add_row(
            escape(f"{one['axis']}\n{one['state']}"), _estimate(one["training"]),
            f"{_estimate(one['fresh'])}\np = {p_text(one['fresh']['p_holm'])}",
            "-" if one["main_probe"] is None else f"{one['main_probe']['auc']:.3f}",
            "-" if pair is None or pair["r"] is None
            else f"{pair['r']:+.2f}\n{_short(pair['interval'])}",
        )  # fmt: skip
    return table


def beside(metrics: Found) -> list[tuple[str, str, str]]:
    """What the edit is compared with: a line each of its base and of the edited model."""
    base = metrics["base"]
    rows = [
        (f"right answers, {name}", _right(base["sets"][name]), _right(metrics["sets"][name]))
        for name in ("train", "fresh")
    ]
    for number, (before, after) in enumerate(
        zip(base["steps"], metrics["steps"], strict=False), start=1
    ):
        named = [{gate["gate"]: gate for gate in step["gates"]} for step in (before, after)]
        names = dict.fromkeys([*named[0], *named[1]]) or {"not run": None}
        for name in names:
            first, second = _shown(named[0].get(name), before), _shown(named[1].get(name), after)
            rows.append((f"step {number}: {name}", first, second))
    return rows


def _right(one: Found) -> str:
    return f"{one['right']}/{one['right'] + one['wrong']}"


def _shown(gate: Found | None, step: Found) -> str:
    if gate is None or gate["estimate"] is None:
        return str(step["reason"] or "-")
    return f"{gate['estimate']['value']:.3f} {interval_text(gate['estimate']['interval'])}"


def _beside(metrics: Found) -> Table:
    table = _table(
        f"{metrics['base']['model']['name']}, the base, beside it",
        "each on its own answers to the same questions, with its own probe; intervals of each "
        "alone, not of the difference",
    )
    table.add_column("", overflow="fold", min_width=16)
    table.add_column("base", justify="right", overflow="fold", min_width=12)
    table.add_column("edited", justify="right", overflow="fold", min_width=12)
    for row in beside(metrics):
        table.add_row(*(escape(one) for one in row))
    return table


def _modes(metrics: Found) -> Table:
    table = _table("Why it may fail", "shown: the numbers say so; with their intervals in brackets")
    table.add_column("mode", overflow="fold", min_width=12)
    table.add_column("state", overflow="fold", min_width=8)
    table.add_column("because", overflow="fold")
    for one in metrics["modes"]:
        lines = [one["why"], *facts_of(one)]
        table.add_row(one["mode"].replace("_", " "), one["state"],
                      escape("\n".join(lines)))  # fmt: skip
    return table


def facts_of(one: Found) -> list[str]:
    """What a mode rests on, a line each."""
    if one["mode"] == "uniform_output" and "words" in one:
        words, alike = one["words"], one["similarity"]
        excess = alike["excess"]
        return [
            f"words, AUC {words['auc']:.3f} {interval_text(words['interval'])}, p = "
            f"{p_text(words['p_value'])}",
            f"similarity {alike['within_right']:.3f} among right, {alike['within_wrong']:.3f} "
            f"among wrong, {alike['between']:.3f} between: excess {excess['value']:+.3f} "
            f"{interval_text(excess['interval'])}, p = {p_text(alike['p_value'])}",
        ]
    if one["mode"] == "capability_cliff":
        lines = [_rates(one["rates"])]
        if "equal_claim_counts" in one:
            equal = one["equal_claim_counts"]
            lines.append(f"of {equal['claims']} claims: {_rates(equal)}")
        return lines
    if one["mode"] == "style_closure":
        return [f"{probe['target']}: {_told(probe)}" for probe in one["probes"]]
    return []


def _told(probe: Found) -> str:
    if probe["auc"] is None:
        return str(probe["why"])
    return f"AUC {probe['auc']:.3f} {interval_text(probe['interval'])}"


def _rates(found: Found) -> str:
    train, fresh, ratio = found["train"], found["fresh"], found["ratio"]
    line = f"right {train['right']}/{train['n']} in training, {fresh['right']}/{fresh['n']} fresh"
    if ratio is None:
        return line
    interval = ratio["interval"]
    high = "inf" if interval["high"] is None else f"{interval['high']:.3f}"
    value = "inf" if ratio["value"] is None else f"{ratio['value']:.3f}"
    return f"{line}: ratio {value} [{interval['low']:.3f}, {high}]"


def sentences(metrics: Found) -> list[str]:
    """What needs a sentence rather than a row."""
    registration = metrics["registration"]
    lines = [
        f"{registration['state'].capitalize()}: {registration['why']}. Gates: sha-256 "
        f"{registration['gates_file_sha256'][:16]}."
    ]
    lines += _made_by(metrics)
    of_all = registration["all_five"]
    if of_all["state"] != registration["state"]:
        lines.append(f"All five steps together: {of_all['state']}, {of_all['why']}.")
    training, fresh = metrics["steps"][0], metrics["steps"][1]
    if training["state"] != NOT_RUN:
        null, chance = training["permuted_labels"], training["chance"]
        lines.append(
            f"Training AUC on one set of folds {null['out_of_fold_auc']:.3f}, of permuted labels "
            f"{null['null_mean']:.3f} on average (p = {p_text(null['p_value'])}, "
            f"{null['permutations']} permutations)"
            + ("." if chance is None else f"; chance passes its asymmetry gate in "
               f"{100 * chance['passes_the_gate']:.0f}% of them.")
        )  # fmt: skip
    for one in fresh["readings"]:
        auc = "-" if one["auc"] is None else f"{one['auc']:.3f}"
        lines.append(f"Step 2 with {one['way']}: AUC {auc}, {one['state']} (n = {one['n']}).")
    lines += [
        f"Step {place} was not run: {one['reason']}."
        for place, one in enumerate(metrics["steps"], 1) if one["state"] == NOT_RUN
    ]  # fmt: skip
    lines += [
        f"Step {place} is not decidable: {one['reason']}."
        for place, one in enumerate(metrics["steps"], 1)
        if one.get("hangs_on_cut_answers") or one.get("between_kinds")
    ]  # fmt: skip
    axes = metrics["steps"][2]
    if axes["state"] != NOT_RUN:
        lines += [f"Step 3 leaves out {axis}: {why}." for axis, why in axes["left_out"].items()]
    if axes["in_one_set"]:
        lines.append(f"Labelled in one set only, and not looked at: "
                     f"{', '.join(axes['in_one_set'])}.")  # fmt: skip
    unseen = [f"{one['without_prompt']} of {one['n']} {name}"
              for name, one in metrics["sets"].items() if one["without_prompt"]]  # fmt: skip
    if unseen:
        lines.append(f"Items without a prompt, which were not looked for in the other set: "
                     f"{', '.join(unseen)}.")  # fmt: skip
    again = [f"{one['repeated_rows']} of {one['n']} {name}"
             for name, one in metrics["sets"].items() if one.get("repeated_rows")]  # fmt: skip
    if again:
        lines.append(f"Rows that are another item's, bit for bit: {', '.join(again)}.")
    lacking = [
        f"{name} {one['without_label']} without label, {one['without_features']} without features"
        for name, one in metrics["sets"].items()
        if one["without_label"] or one["without_features"]
    ]
    if metrics["labels_without_rows"]:
        lacking.append(f"{metrics['labels_without_rows']} labelled items without a row in any set")
    return lines + ([f"Left out: {'; '.join(lacking)}."] if lacking else [])


def _made_by(metrics: Found) -> list[str]:
    """What read the states, and how those of the other model were made otherwise."""
    made, other = metrics["sets"]["train"].get("made_by", {}), metrics["steps"][-1]
    lines = []
    if made.get("states") is not None:
        others = made["answers"] not in (None, made["states"])
        by = f", answers given by {made['answers']}" if others else ""
        lines.append(f"States read by {made['states']}{by}.")
    if other["state"] != NOT_RUN and other.get("unlike"):
        apart = "; ".join(
            f"{name}: {pair[1] or 'not stated'}, here {pair[0] or 'not stated'}"
            for name, pair in other["unlike"].items()
        )
        lines.append(
            f"{other['model']['name']} was read otherwise ({apart}): it has a probe of its own, "
            "and the size of its numbers is not comparable."
        )
    return lines


def _verdict(metrics: Found) -> Panel:
    text = Text()
    for name, label in CLAIMS.items():
        one = metrics["claims"][name]
        if text:
            text.append("\n")
        text.append(f"{label}: ")
        text.append(one["verdict"], style=COLOURS[one["verdict"]])
        reasons = ", ".join(one["reasons"]).replace("_", " ")
        text.append(f" ({reasons}), {registered(metrics, name)}. Claim: {one['statement']}. "
                    f"{because(one)}")  # fmt: skip
    unrun = [str(place) for place, one in enumerate(metrics["steps"], 1) if one["state"] == NOT_RUN]
    if unrun:
        text.append(f"\nNot run: step {', '.join(unrun)}.")
    return Panel(text, title="Verdict", title_align="left")


def registered(metrics: Found, claim: str) -> str:
    """What the order of gates and answers is worth for a claim."""
    found = metrics["registration"]
    state: str = (found["all_five"] if claim == "all_five" else found)["state"]
    return state


def because(claim: Found) -> str:
    """The number, its interval, why, and what would settle it."""
    return explanations.because(claim, _OWN, "such items")


def _counts(one: Found) -> str:
    return f"{one['right']} + {one['wrong']}"


def _estimate(one: Found) -> str:
    return f"{one['value']:.3f}\n{interval_text(one['interval'])}"


def _short(one: Found) -> str:
    return f"[{one['low']:.2f}, {one['high']:.2f}]"


def _table(title: str, caption: str) -> Table:
    return Table(
        title=escape(title), caption=caption, box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
