"""A generation for people: what was kept, what was dropped and why, who wrote it, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def report(metrics: Mapping[str, Any]) -> Group:
    """Tables, then what follows in words."""
    return Group(
        _records(metrics), _filters(metrics), _teachers(metrics), *map(Text, _words(metrics))
    )


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, box=SIMPLE_HEAD, title_style="bold")
    for i, name in enumerate(columns):
        made.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    return made


def _records(metrics: Mapping[str, Any]) -> RenderableType:
    made = _table("Records", "type", "wanted", "kept", "of these train", "share kept")
    for kind, one in metrics["records"].items():
        share = f"{one['kept'] / one['wanted']:.0%}" if one["wanted"] else "-"
        made.add_row(kind, str(one["wanted"]), str(one["kept"]), str(one["train"]), share)
    return made


def _filters(metrics: Mapping[str, Any]) -> RenderableType:
    made = _table("Filters that dropped something", "type: rule", "before", "dropped", "after")
    for kind, one in metrics["records"].items():
        for count in one["filters"]:
            if count["dropped"]:
                made.add_row(
                    f"{kind}: {count['rule']}", str(count["before"]), str(count["dropped"]),
                    str(count["after"]),
                )  # fmt: skip
    return made


def _teachers(metrics: Mapping[str, Any]) -> RenderableType:
    made = _table("Teachers", "teacher", "licence", "roles", "answers", "tokens in, out", "USD")
    for name, one in metrics["teachers"].items():
        answers = one["answers"]
        tokens = f"{one['input_tokens']}, {one['output_tokens']}" if answers else "-"
        if answers and one["tokens_not_reported"]:
            tokens += f" ({one['tokens_not_reported']} not told)"
        cost = "-" if not answers or one["cost_not_known"] == answers else f"{one['usd']:.4f}"
        roles = "all" if len(one["roles"]) >= 10 else ", ".join(one["roles"])
        made.add_row(f"{name} ({one['model']})", one["licence"], roles, str(answers), tokens, cost)
    return made


def _words(metrics: Mapping[str, Any]) -> list[str]:
    prompts, verifier = metrics["prompts"], metrics["verifier"]
    found, split = prompts["found"], prompts["split"]
    asked = prompts["wanted"]
    lines = [
        f"Prompts: {found['gold']} of {asked['gold']} for gold, {found['boundary']} of "
        f"{asked['boundary']} for boundary cases, {split['train']} to train on and "
        f"{split['held_out']} held out; {sum(prompts['rejected'].values())} rejected "
        f"({_listed(prompts['rejected'])}).",
        f"Fresh prompts: {found['fresh']} of {asked['fresh']}, "
        f"{prompts['fresh_near_duplicates']} near duplicates of the others; "
        + {
            True: "one author wrote both (generator_not_independent).",
            False: "another author wrote them.",
            None: "whether one author wrote both is not known.",
        }[prompts["generator_not_independent"]],
        f"Chef verifier: ranks {verifier['ranked_right']:.0%} of {verifier['n']} pairs right "
        f"[{verifier['low']:.0%}, {verifier['high']:.0%}], the bar is {verifier['gate']:.0%}: its "
        f"score is {'used' if verifier['used'] else 'not used'}.",
        f"Licences of what the teachers write: {', '.join(metrics['licences'])}.",
    ]
    mute = {name: one["ends_not_told"] for name, one in metrics["teachers"].items()
            if one.get("ends_not_told")}  # fmt: skip
    if mute:
        lines.append(f"Answers without a finish reason, whose text tells whether they ended: "
                     f"{_listed(mute)}.")  # fmt: skip
    if metrics["failed"]:
        lines.append(_failed(metrics["failed"], metrics["failed_may_come"]))
    return lines


def _failed(n: int, may_come: int) -> str:
    said = f"{n} records have no answer from a teacher"
    if may_come:
        said += f"; {may_come} may have one later: continue with --run to ask again"
    if n > may_come:
        said += (
            f"; {n - may_come} were refused, or are too long for their teacher, and will be again "
            "(dropped.jsonl says why)"
        )
    return f"{said}."


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{rule} {n}" for rule, n in counts.items()) or "none"
