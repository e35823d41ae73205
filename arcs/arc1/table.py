"""The result for a person: a table with intervals, then the verdict."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs.arc1.full_report import whole_report
from arcs.arc1.metrics import (
    Arc1Metrics,
    ArmAtBudget,
    BudgetResult,
    Claim,
    Interval,
    PreferenceSummary,
)
from evals.humaneval.outcomes import Outcome

COLOURS = {
    "SUPPORTED": "bold green",
    "REFUTED": "bold cyan",
    "INCONCLUSIVE": "bold yellow",
    "INVALID": "bold red",
}


SHORT = {
    Outcome.PASSED: "pass",
    Outcome.WRONG: "wrong",
    Outcome.TIMEOUT: "time-out",
    Outcome.SYNTAX_ERROR: "syntax",
    Outcome.NO_CODE: "no code",
    Outcome.UNCLOSED_FENCE: "fence",
    Outcome.UNCLOSED_THINK: "think",
    Outcome.TRUNCATED: "truncated",
    Outcome.INFRASTRUCTURE_ERROR: "missing",
}
"""Column heads; every outcome has one."""


def render(metrics: Arc1Metrics, console: Console | None = None) -> None:
    """Print the result on stdout."""
    console = console or Console(highlight=False)
    others = [rates_table(metrics, arm) for arm in metrics.other_arms]
    console.print(
        Group(
            *others,
            rates_table(metrics),
            outcomes_table(metrics),
            *whole_report(metrics),
            verdict_panel(metrics),
        )
    )


def rates_table(metrics: Arc1Metrics, arm: str | None = None) -> Table:
    """pass@1 of both arms and the paired difference at every n_predict.

    ``arm``: one between the base and what the run ends with; None: that.
    """
    made, budgets = metrics.made_with, metrics.budgets
    name, before = "trained", ""
    if arm is not None:
        budgets, name, before = metrics.other_arms[arm].budgets, arm, f"{arm.upper()} alone: "
    table = Table(
        title=f"{before}{made['evaluation']['dataset']} pass@1, {made['model']['name']}, "
        f"{made['evaluation']['quantisation']} GGUF, n = {metrics.claim.n_items}",
        caption="95% intervals: Wilson for rates, Tango for the paired difference; "
        "+gained -lost problems; p: exact McNemar; n: n_predict",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("n", "base", name, "difference", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict at n", min_width=12, overflow="fold")
    for budget in budgets:
        table.add_row(*_row(budget), end_section=True)
    return table


def _row(budget: BudgetResult) -> tuple[str | Text, ...]:
    claim = budget.claim
    discordant = "" if budget.gained is None else f"\n+{budget.gained} -{budget.lost}"
    return (
        str(budget.n_predict),
        _rate(budget.base),
        _rate(budget.trained),
        _points(claim.delta, claim.interval) + discordant,
        "" if claim.p_value is None else f"{claim.p_value:.2g}",
        _verdict(claim),
    )


def _rate(arm: ArmAtBudget) -> str:
    if arm.pass_at_1 is None or arm.interval is None:
        return "missing"
    low, high = 100 * arm.interval.low, 100 * arm.interval.high
    counted = arm.n_items - arm.missing
    return f"{100 * arm.pass_at_1:.1f}%\n[{low:.1f}, {high:.1f}]\n{arm.passed}/{counted}"


def _points(delta: float | None, interval: Interval | None) -> str:
    if delta is None or interval is None:
        return "missing"
    return f"{100 * delta:+.1f} pt\n[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _verdict(claim: Claim) -> Text:
    text = Text(claim.verdict, style=COLOURS[claim.verdict])
    return text.append("\n" + ", ".join(claim.reasons).replace("_", " "), style="dim")


ROOMY = 5
"""So many kinds of outcome stand beside each other with room; more only tightly."""
STACKED = {"time-out": "time-\nout", "no code": "no\ncode", "truncated": "trun-\ncated",
           "missing": "miss-\ning"}  # fmt: skip


def outcomes_table(metrics: Arc1Metrics) -> Table:
    """What became of the items, each kind counted apart, and what n_predict cut off."""
    by_arm: list[tuple[str, list[ArmAtBudget]]] = [("base", [b.base for b in metrics.budgets])]
    by_arm += [(arm, [b.trained for b in o.budgets]) for arm, o in metrics.other_arms.items()]
    by_arm.append(("trained", [b.trained for b in metrics.budgets]))
    kinds = [kind for kind in SHORT if any(one.outcomes[kind] for _, own in by_arm for one in own)]
    crowded = len(kinds) > ROOMY
    table = Table(
        title="Outcomes",
        caption="fence, think: never closed; cut: stopped by n_predict, of which loops: "
        "ending in an exact repetition",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0) if crowded else (0, 1),
    )
    if crowded:
        table.add_column("n,\narm", no_wrap=True)
    else:
        table.add_column("n", justify="right", no_wrap=True)
        table.add_column("arm", no_wrap=True)
    for name in (*(SHORT[kind] for kind in kinds), "cut", "loops"):
        head = STACKED.get(name, name) if crowded else name
        table.add_column(head, justify="right", no_wrap=True)
    for place, budget in enumerate(metrics.budgets):
        for name, own in by_arm:
            arm = own[place]
            counts = (str(arm.outcomes[kind]) for kind in kinds)
            cut = _share(arm.truncated, arm.truncated_share)
            cut = cut.replace(" ", "\n") if crowded else cut
            loops = "unknown" if arm.loops is None else str(arm.loops)
            n = str(budget.n_predict) if name == "base" else ""
            label = (f"{budget.n_predict}\n{name}",) if crowded else (n, name)
            table.add_row(*label, *counts, cut, loops, end_section=name == "trained")
    return table


def _share(count: int | None, share: float | None) -> str:
    return "unknown" if count is None or share is None else f"{count} ({100 * share:.0f}%)"


def verdict_panel(metrics: Arc1Metrics) -> Panel:
    """The run's verdict in words."""
    claim = metrics.claim
    text = Text(f"{claim.verdict} ", style=COLOURS[claim.verdict])
    text.append(f"({', '.join(claim.reasons)}), at n_predict {claim.n_predict}\n")
    text.append(f"Claim: {claim.statement}\n{claim.explanation}")
    if metrics.escalated:
        steps = ", ".join(map(str, metrics.escalated))
        text.append(f"\nUnfinished answers were continued to n_predict {steps}: they could have "
                    "changed the conclusion.")  # fmt: skip
    training = metrics.training
    if training is not None:
        text.append(
            f"\nTraining: {training.optimiser_steps} steps on {training.examples} records, "
            f"loss {training.first_loss:.3f} -> {training.last_loss:.3f}"
        )
        if training.held_out:
            first, last = training.held_out[0].loss, training.held_out[-1].loss
            n = training.held_out_examples
            text.append(f", held-out ({n} records) {first:.3f} -> {last:.3f}")
    if metrics.training_dpo is not None:
        text.append("\n" + preference_line(metrics.training_dpo))
    counted = [
        f"{arm} {found.near_ties:,} of {found.tokens:,}"
        for arm, found in metrics.decoding.items()
        if found.near_ties is not None
    ]
    if counted:
        text.append(
            f"\nNear-ties: {', '.join(counted)} tokens (another engine's or machine's rounding "
            "could choose another there)",
            style="dim",
        )
    return Panel(text, title="Verdict", title_align="left")


def preference_line(dpo: PreferenceSummary) -> str:
    """DPO in one sentence: losses, and what held-out pairs say."""
    against = "the base" if dpo.reference.kind == "base" else "an adapter"
    expected = " (= ln 2)" if dpo.policy_is_reference else " (policy is not the reference)"
    line = (
        f"DPO: {dpo.optimiser_steps} steps on {dpo.pairs} pairs against {against}, first loss "
        f"{dpo.step0_loss:.4f}{expected}, last {dpo.last_loss:.3f}"
    )
    if not dpo.held_out:
        return line
    before, after = dpo.held_out[0], dpo.held_out[-1]
    right = round(after.accuracy * after.pairs)
    return (
        f"{line}; held-out loss {before.loss:.3f} -> {after.loss:.3f}, reward margin "
        f"{after.margin:+.3f}, {right} of {after.pairs} pairs ranked right"
    )
