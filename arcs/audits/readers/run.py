"""Our own run directories: manifest.json, items.jsonl, completions and metrics.json.

Runs of Arc 2 and Arc 3 have readers of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.audits.readers import run_arc2, run_arc3
from arcs.audits.readers.source import (
    filled_text,
    flatten,
    read_json,
    read_json_lines,
    require_distinct,
    text_of,
)
from arcs.audits.results import (
    Instrument,
    Item,
    LabelKind,
    Reported,
    Results,
    ResultSet,
    Role,
)
from evals.benchmarks import built_in_prompts
from evals.humaneval.outcomes import Outcome
from models.errors import UserError

FORMAT = "threearc run"
MANIFEST = "manifest.json"
ITEMS = "items.jsonl"
METRICS = "metrics.json"
Reader = Callable[[Path, Mapping[str, Any], Mapping[str, Any], str | None], Results]
OWN: Mapping[str, tuple[tuple[str, ...], Reader]] = {
    "arc2": (run_arc2.NEEDED, run_arc2.read),
    "arc3": ((*run_arc3.NEEDED, METRICS), run_arc3.read),
}
"""What a finished run has, and its reader."""
READ = ("arc1", "eval", *OWN)
"""Kinds of runs."""


@dataclass(frozen=True)
class _Run:
    path: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    family: str | None


def runs_in(path: Path) -> list[Path]:
    """Return the run directories that a path is or holds."""
    if not path.is_dir():
        return []
    folders = [path, *sorted(entry for entry in path.iterdir() if entry.is_dir())]
    return [folder for folder in folders if _is_run(folder)]


def _is_run(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_json(folder / MANIFEST)
    return isinstance(manifest, dict) and "arc" in manifest and "config" in manifest


def read(path: Path) -> Results:
    """Read one run, or every run of a folder (one family a run).

    Raises UserError for damage, and for a single run that is not finished; unfinished runs of
    a folder are left out with a note.
    """
    folders = runs_in(path)
    lacking = {one: _lacking(one) for one in folders}
    finished = [one for one, name in lacking.items() if name is None]
    if not finished:
        first = folders[0] if folders else path
        arc = read_json(first / MANIFEST)["arc"] if folders else "arc1"
        if arc not in READ:
            raise UserError(
                f"{first}: a run of {arc}; runs of {', '.join(READ)} are what can be audited"
            )
        raise UserError(
            f"{first}: the run has no {lacking.get(first, ITEMS)} yet; finish it with threearc "
            f"{arc} --run {first}"
        )
    found = [_read(one, one.name if len(finished) > 1 else None) for one in finished]
    left = tuple(_why_not(one, name) for one, name in lacking.items() if name is not None)
    return Results(
        path,
        FORMAT,
        sets=tuple(one for each in found for one in each.sets),
        probes=tuple(one for each in found for one in each.probes),
        rankings=tuple(one for each in found for one in each.rankings),
        interventions=tuple(one for each in found for one in each.interventions),
        claims=tuple(one for each in found for one in each.claims),
        skipped=(*(one for each in found for one in each.skipped), *left),
    )


def _lacking(folder: Path) -> str | None:
    """The first file that a finished run has and this one has not; None where it has all."""
    arc = str(read_json(folder / MANIFEST)["arc"])
    needed = OWN[arc][0] if arc in OWN else (ITEMS,)
    return next((name for name in needed if not (folder / name).is_file()), None)


def _why_not(folder: Path, lacking: str) -> str:
    arc = str(read_json(folder / MANIFEST)["arc"])
    if arc not in READ:
        return f"{folder}: a run of {arc} holds no answers of its own to audit"
    return f"{folder}: no {lacking}, the run is not finished"


def _read(folder: Path, family: str | None) -> Results:
    run = _open(folder, family)
    own = OWN.get(str(run.manifest["arc"]))
    try:
        if own is not None:
            return own[1](folder, run.manifest, run.metrics, family)
        return Results(folder, FORMAT, sets=tuple(_sets(run)))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: a record of the run lacks {error}; it is damaged") from None


def _open(folder: Path, family: str | None) -> _Run:
    metrics = read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    return _Run(folder, read_json(folder / MANIFEST), metrics, family)


def _sets(run: _Run) -> Iterator[ResultSet]:
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _, record in read_json_lines(run.path / ITEMS):
        rows.setdefault((record["arm"], record["n_predict"]), []).append(record)
    prompts = _prompts(run)
    decoded = {arm: _completions(run.path, arm) for arm, _ in rows}
    for (arm, n_predict), records in rows.items():
        name = f"{run.path.name} {arm} at n_predict {n_predict}"
        items = tuple(_item(r, n_predict, decoded[arm], prompts) for r in records)
        require_distinct(items, f"{run.path / ITEMS} ({arm}, n_predict {n_predict})")
        yield ResultSet(
            name=name,
            source=run.path / ITEMS,
            items=items,
            instruments=_instruments(run),
            role=Role.TEST,
            arm=arm,
            task=run.manifest.get("evaluation", {}).get("dataset"),
            n_predict=n_predict,
            settings=_settings(run, arm),
            reported=_reported(run, arm, n_predict),
            family=run.family,
        )


def _prompts(run: _Run) -> Mapping[str, str]:
    """Prompts by task id, where the run's data set is one that is installed here."""
    return built_in_prompts(str(run.manifest.get("evaluation", {}).get("dataset_sha256")))


def _completions(folder: Path, arm: str) -> Mapping[str, Mapping[str, Any]]:
    """An arm's decodes by item; of one that was continued, the last stage's, which holds all."""
    stages = {}
    for path in folder.glob("*.completions.jsonl"):
        stage = path.name.removesuffix(".completions.jsonl").removeprefix(arm)
        if path.name.startswith(arm) and (not stage or re.fullmatch(r"\.\d+", stage)):
            stages[int(stage[1:] or 0)] = path
    return {
        record["item_id"]: record
        for budget in sorted(stages)
        for _, record in read_json_lines(stages[budget])
    }


def _item(
    record: Mapping[str, Any],
    n_predict: int,
    decoded: Mapping[str, Mapping[str, Any]],
    prompts: Mapping[str, str],
) -> Item:
    item_id = record["item_id"]
    completion = decoded.get(item_id)
    outcome = Outcome(record["outcome"])
    failed = outcome is Outcome.INFRASTRUCTURE_ERROR
    return Item(
        item_id=item_id,
        prompt=prompts.get(item_id),
        response=text_of(record["text"]),
        finish_reason=_finish_reason(record["truncated"], completion),
        generated_tokens=None if completion is None else min(n_predict, len(completion["ids"])),
        repetition_loop=record.get("loop"),
        labels={
            "passed": None if failed else outcome is Outcome.PASSED,
            "outcome": None if failed else outcome.value,
        },
    )


def _finish_reason(truncated: bool, completion: Mapping[str, Any] | None) -> str | None:
    """Return why the answer ended at its n_predict; the decode's own reason if it ended before."""
    if truncated:
        return "length"
    reason = None if completion is None else filled_text(completion["finish_reason"])
    return None if reason == "length" else reason


def _instruments(run: _Run) -> Mapping[str, Instrument]:
    level = run.manifest.get("sandbox", {}).get("level")
    judge = None if level is None else f"the data set's tests, run in sandbox {level}"
    tests = run.manifest.get("evaluation", {}).get("dataset_sha256")
    return {
        "passed": Instrument("passed", LabelKind.PASS, judge=judge, prompt_sha=tests),
        # no classes: an outcome that never occurs (no time-out) is nothing to look into
        "outcome": Instrument("outcome", LabelKind.CLASS, judge=judge, prompt_sha=tests),
    }


def _settings(run: _Run, arm: str) -> Mapping[str, str]:
    """Everything about the evaluation but the edit itself, which is what arms differ in."""
    manifest = run.manifest
    engine = manifest.get(f"engine_{arm}", {})
    return {
        **flatten({k: v for k, v in engine.items() if not k.startswith("adapter")}, "engine."),
        **flatten(_pick(manifest.get("model", {}), "name", "fingerprint"), "model."),
        **flatten(_pick(manifest.get("chat", {}), "template_sha256", "thinking"), "chat."),
        **flatten(
            _pick(
                manifest.get("evaluation", {}),
                "dataset_sha256", "prompt_style", "prompts_sha256", "quantisation",
            ),
            "evaluation.",
        ),
    }  # fmt: skip


def _pick(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.get(name) for name in names}


def _budgets(run: _Run) -> Sequence[Mapping[str, Any]]:
    budgets: Sequence[Mapping[str, Any]] = run.metrics.get("budgets", [])
    return budgets


def _reported(run: _Run, arm: str, n_predict: int) -> tuple[Reported, ...]:
    return tuple(
        Reported("pass@1", budget[arm]["pass_at_1"], budget[arm]["interval"] is not None)
        for budget in _budgets(run)
        if budget["n_predict"] == n_predict and budget.get(arm, {}).get("pass_at_1") is not None
    )
