"""The paper's published files as result sets, built by hand, for tests of single audits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from arcs.audits.results import Features, Instrument, Item, LabelKind, Results, ResultSet, Role

JUDGE = "deepseek/deepseek-v3.2-exp"
AXES = (
    "factual_accuracy",
    "hedging_appropriateness",
    "pedagogical_framing",
    "self_verification",
    "completeness",
)
CERT = Instrument("cert", LabelKind.CLASS, classes=("CERTAIN", "UNCERTAIN", "AMBIGUOUS"))
COVERAGE = Instrument("coverage", LabelKind.SHARE, threshold=0.5, threshold_label="correct")
CORRECT = Instrument("correct", LabelKind.PASS)
VERBAL = Instrument("verbal", LabelKind.CLASS, classes=("assert", "hedge"), default="assert")


def load(folder: Path, name: str) -> Any:
    """One published file."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _instruments(*fixed: Instrument) -> dict[str, Instrument]:
    axes = (Instrument(axis, LabelKind.SCORE, scale=(1, 5), judge=JUDGE) for axis in AXES)
    return {one.name: one for one in (*fixed, *axes)}


def _scores(row: dict[str, Any]) -> dict[str, float | None]:
    return {axis: row["scores"].get(axis) for axis in AXES}


def gemma_step16(folder: Path) -> ResultSet:
    """100 training items with checklist and rubric labels."""
    rows = load(folder, "judge_v4_step16.json")["items"]
    items = tuple(
        Item(
            f"step16-{row['i']}",
            prompt=row["prompt"],
            response=row["response"],
            labels={k: row[k] for k in ("coverage", "correct", "verbal", "cert")} | _scores(row),
        )
        for row in rows
    )
    instruments = _instruments(CERT, COVERAGE, CORRECT, VERBAL)
    return ResultSet("gemma step16", folder, items, instruments, Role.TRAIN, family="gemma")


def gemma_fresh(folder: Path) -> ResultSet:
    """193 test items with checklist and rubric labels."""
    rows = load(folder, "judge_v4_fresh.json")["items"]
    judged = load(folder, "v1_full_fresh_judged_gold.json")
    items = tuple(
        Item(
            f"fresh-{i}",
            prompt=row["prompt"],
            response=row["response"],
            labels={"coverage": coverage, "correct": bool(label), "cert": row["cert"]}
            | _scores(row),
        )
        for i, (row, coverage, label) in enumerate(
            zip(rows, judged["coverage"], judged["labels"], strict=True)
        )
    )
    instruments = _instruments(CERT, COVERAGE, CORRECT)
    return ResultSet("gemma fresh", folder, items, instruments, Role.TEST, family="gemma")


def chef_rows(folder: Path, name: str) -> ResultSet:
    """Rows of the verifier for one checkpoint: "baseline" or "full_ddv2"."""
    rows = load(folder, f"eval_{name}.json")["rows"]
    items = tuple(
        Item(
            str(row["i"]),
            prompt=row["prompt"],
            response=row["response"],
            labels={"technique_clean": row["incorrect_technique"] == 0, "passed": row["passed"]},
        )
        for row in rows
    )
    found = {n: Instrument(n, LabelKind.PASS) for n in ("technique_clean", "passed")}
    return ResultSet(name, folder, items, found, arm=name, family="chef")


def profile(folder: Path, name: str) -> ResultSet:
    """A disposition profile: "smollm_v2_", "qwen35_0.8b_v2_", or "" for the retracted one."""
    samples = load(folder, f"baseline_{name}disposition_profile.json")["samples"]
    items = tuple(
        Item(
            f"{row['prompt_i']}-{row['sample_idx']}",
            response=row["text"],
            topic=row["topic"],
            group=str(row["prompt_i"]),
            labels={k: row[k] for k in ("coverage", "correct", "verbal")},
        )
        for row in samples
    )
    instruments = {one.name: one for one in (COVERAGE, CORRECT, VERBAL)}
    return ResultSet(f"{name}profile", folder, items, instruments, Role.TRAIN, family=name)


def smollm(folder: Path) -> Results:
    """SmolLM2's training and test features; rows carry no ids and are joined by position."""
    train = profile(folder, "smollm_v2_")
    judged = load(folder, "smollm_fresh_judged_gold.json")
    test = tuple(
        Item(f"fresh-{i}", labels={"coverage": c, "correct": bool(label)})
        for i, (c, label) in enumerate(zip(judged["coverage"], judged["labels"], strict=True))
    )
    sets = (
        _with_features(train, folder / "smollm_step16_features.npz"),
        _with_features(
            ResultSet(
                "fresh",
                folder,
                test,
                {"coverage": COVERAGE, "correct": CORRECT},
                Role.TEST,
                family=train.family,
            ),
            folder / "smollm_fresh_features.npz",
        ),
    )
    return Results(folder, "paper artifacts", sets)


def _with_features(one: ResultSet, file: Path) -> ResultSet:
    with np.load(file) as arrays:
        x = arrays["X"]
    ids = tuple(item.item_id for item in one.items)
    features = Features(x, ids, ids_are_positions=True)
    return ResultSet(
        one.name,
        one.source,
        one.items,
        one.instruments,
        one.role,
        features=features,
        family=one.family,
    )


def of(*sets: ResultSet) -> Results:
    """Results that hold these sets."""
    return Results(sets[0].source, "paper artifacts", sets)
