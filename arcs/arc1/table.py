"""The result for a person: a table with intervals, then the verdict."""

from __future__ import annotations

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs.arc1.metrics import Arc1Metrics, ArmAtBudget, BudgetResult, Claim, Interval

COLOURS = {
    "SUPPORTED": "bold green",
    "REFUTED": "bold cyan",
    "INCONCLUSIVE": "bold yellow",
    "INVALID": "bold red",
}


def render(metrics: Arc1Metrics, console: Console | None = None) -> None:
    """Print the result on stdout."""
    console = console or Console(highlight=False)
    console.print(Group(rates_table(metrics), outcomes_table(metrics), verdict_panel(metrics)))


def rates_table(metrics: Arc1Metrics) -> Table:
    """pass@1 of both arms, truncation, and the paired difference at every n_predict."""
    made = metrics.made_with
    table = Table(
        title=f"HumanEval pass@1, {made['model']['name']}, "
        f"{made['evaluation']['quantisation']} GGUF, n = {metrics.claim.n_items}",
        caption="95% intervals: Wilson for rates, Tango for the paired difference; "
        "p: exact McNemar; cut: stopped by n_predict (of which repetition loops)",
    )
    for name in ("n_predict", "base", "trained", "cut base", "cut trained", "difference", "+/-",
                 "p", "verdict at n"):  # fmt: skip
        table.add_column(name, justify="left" if name == "verdict at n" else "right")
    for budget in metrics.budgets:
        table.add_row(*_row(budget))
    return table


def _row(budget: BudgetResult) -> tuple[str | Text, ...]:
    claim = budget.claim
    return (
        str(budget.n_predict),
        _rate(budget.base),
        _rate(budget.trained),
        _cut(budget.base),
        _cut(budget.trained),
        _points(claim.delta, claim.interval),
        "" if budget.gained is None else f"+{budget.gained} -{budget.lost}",
        "" if claim.p_value is None else f"{claim.p_value:.2g}",
        _verdict(claim),
    )


def _rate(arm: ArmAtBudget) -> str:
    if arm.pass_at_1 is None or arm.interval is None:
        return "missing"
    low, high = 100 * arm.interval.low, 100 * arm.interval.high
    counted = arm.n_items - arm.missing
    return f"{arm.passed}/{counted}\n{100 * arm.pass_at_1:.1f}% [{low:.1f}, {high:.1f}]"


def _cut(arm: ArmAtBudget) -> str:
    if arm.truncated is None or arm.truncated_share is None:
        return "unknown"
    return f"{arm.truncated} ({arm.loops})\n{100 * arm.truncated_share:.0f}%"


def _points(delta: float | None, interval: Interval | None) -> str:
    if delta is None or interval is None:
        return "missing"
    return f"{100 * delta:+.1f} pt\n[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _verdict(claim: Claim) -> Text:
    text = Text(claim.verdict, style=COLOURS[claim.verdict])
    return text.append("\n" + ", ".join(claim.reasons), style="dim")


def outcomes_table(metrics: Arc1Metrics) -> Table:
    """What became of the items, each kind counted apart."""
    kinds = [
        kind
        for kind in metrics.budgets[0].base.outcomes
        if any(b.base.outcomes[kind] or b.trained.outcomes[kind] for b in metrics.budgets)
    ]
    table = Table(title="Outcomes")
    table.add_column("n_predict", justify="right")
    table.add_column("arm")
    for kind in kinds:
        table.add_column(kind.replace("_", " "), justify="right")
    for budget in metrics.budgets:
        for name, arm in (("base", budget.base), ("trained", budget.trained)):
            counts = (str(arm.outcomes[kind]) for kind in kinds)
            table.add_row(str(budget.n_predict), name, *counts)
    return table


def verdict_panel(metrics: Arc1Metrics) -> Panel:
    """The run's verdict in words."""
    claim = metrics.claim
    text = Text(f"{claim.verdict} ", style=COLOURS[claim.verdict])
    text.append(f"({', '.join(claim.reasons)}), at n_predict {claim.n_predict}\n")
    text.append(f"Claim: {claim.statement}\n{claim.explanation}")
    training = metrics.training
    if training is not None:
        text.append(
            f"\nTraining: {training.optimiser_steps} steps on {training.examples} records, "
            f"loss {training.first_loss:.3f} -> {training.last_loss:.3f}"
        )
        if training.held_out:
            first, last = training.held_out[0].loss, training.held_out[-1].loss
            text.append(f", held-out {first:.3f} -> {last:.3f}")
    return Panel(text, title="Verdict", title_align="left")
