"""The labelled sets of Arc 3 in the paper's files (PAPER.md 5.5, 6, 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.audits.readers import arrays
from arcs.audits.readers.labels import clean
from arcs.audits.readers.paper_files import Files, claim_count
from arcs.audits.readers.source import filled_text, flatten, require_distinct, require_same_length
from arcs.audits.results import (
    Features,
    Instrument,
    Item,
    LabelKind,
    LabelValue,
    Reported,
    ResultSet,
    Role,
)

AXES = (
    "factual_accuracy", "hedging_appropriateness", "pedagogical_framing", "self_verification",
    "completeness",
)  # fmt: skip
CUT_RUBRIC, CUT_CLAIMS, CUT_VERBAL, CUT_STORED = 3000, 2500, 2500, 1500
"""Characters of a response that each judge saw (PAPER.md 6); STORED: of an already cut text."""
PROFILES = {
    "profile_smollm": ("smollm", CUT_STORED),
    "profile_qwen35": ("qwen35", CUT_STORED),
    "profile_retracted": ("retracted", CUT_VERBAL),
}
"""Kind -> family and the characters that the verbal judge saw."""


def step16(index: int) -> str:
    """Id of a prompt of the training set, by its index from 0."""
    return f"step16/{index}"


def _claim_counts(files: Files) -> dict[int, int | None]:
    """Claims by prompt of step16: the checklist is one for all models, so all shares tell."""
    shares: dict[int, list[float]] = {}
    if files.has("judge_v4_step16"):
        for row in files.json("judge_v4_step16")["items"]:
            shares.setdefault(row["i"], []).append(row["coverage"])
    for kind in PROFILES:
        for row in files.json(kind)["samples"] if files.has(kind) else []:
            shares.setdefault(row["prompt_i"], []).append(row["coverage"])
    return {i: claim_count([v for v in found if v is not None]) for i, found in shares.items()}


def _coverage(cut: int | None, judge: str | None = None) -> dict[str, Instrument]:
    return {
        "coverage": Instrument(
            "coverage", LabelKind.SHARE, scale=(0.0, 1.0), judge=judge, threshold=0.5,
            threshold_label="correct", response_cut=cut,
        ),
        "correct": Instrument("correct", LabelKind.PASS, judge=judge, response_cut=cut),
    }  # fmt: skip


def _verbal(cut: int, judge: str | None = None) -> dict[str, Instrument]:
    classes = ("assert", "hedge")
    return {
        "verbal": Instrument(
            "verbal", LabelKind.CLASS, classes=classes, judge=judge, default="assert",
            response_cut=cut,
        )
    }  # fmt: skip


def _rubric(judge: str | None) -> dict[str, Instrument]:
    classes = ("CERTAIN", "UNCERTAIN", "AMBIGUOUS")
    # The class is given from the question alone, and CERTAIN is what a failure becomes (J1).
    cert = Instrument("cert", LabelKind.CLASS, classes=classes, judge=judge, default="CERTAIN")
    axes = {
        name: Instrument(
            name, LabelKind.SCORE, scale=(1.0, 5.0), judge=judge, response_cut=CUT_RUBRIC
        )
        for name in AXES
    }
    return {"cert": cert, **axes}


def _rubric_labels(row: Mapping[str, Any]) -> dict[str, LabelValue | None]:
    """Class and axes; a row whose scores are an error has none."""
    scores = row["scores"]
    return {"cert": filled_text(row["cert"]), **{name: clean(scores.get(name)) for name in AXES}}


def _judge_settings(params: Mapping[str, Any]) -> dict[str, str]:
    """One text, so that no setting of the judge is taken for one of the model."""
    return {"judge": json.dumps(params, sort_keys=True)}


def _gemma_step16(files: Files) -> Iterator[ResultSet]:
    if not files.has("judge_v4_step16"):
        return
    counts = _claim_counts(files)
    document = files.json("judge_v4_step16")
    # The parameters are those of the rubric run; the other labels were made before it.
    instruments = {
        **_coverage(CUT_CLAIMS),
        **_verbal(CUT_VERBAL),
        **_rubric(document["params"]["judge_model"]),
    }
    items = tuple(
        Item(
            item_id=step16(row["i"]),
            prompt=row["prompt"],
            response=row["response"],
            n_parts=counts[row["i"]],
            labels={
                **{name: clean(row[name]) for name in ("coverage", "correct", "verbal")},
                **_rubric_labels(row),
            },
        )
        for row in document["items"]
    )
    require_distinct(items, str(files.path("judge_v4_step16")))
    yield ResultSet(
        "gemma step16", files.path("judge_v4_step16"), items, instruments, role=Role.TRAIN,
        task="step16", settings=_judge_settings(document["params"]), family="gemma",
    )  # fmt: skip


def _gemma_fresh(files: Files) -> Iterator[ResultSet]:
    judged, gold = files.has("judge_v4_fresh"), files.has("gemma_fresh_gold")
    if not judged and not gold:
        return
    labels = _gold_labels(files, "gemma_fresh_gold") if gold else []
    rows = files.json("judge_v4_fresh")["items"] if judged else [None] * len(labels)
    source = files.path("judge_v4_fresh" if judged else "gemma_fresh_gold")
    if gold and judged:
        require_same_length(source, {"items": len(rows), "gold labels": len(labels)})
    counts = _fresh_claim_counts(files)
    params = files.json("judge_v4_fresh")["params"] if judged else {}
    items = tuple(
        Item(
            item_id=f"fresh/{i}",
            prompt=row["prompt"] if row else None,
            response=row["response"] if row else None,
            n_parts=counts.get(i),
            labels={**(labels[i] if gold else {}), **(_rubric_labels(row) if row else {})},
        )
        for i, row in enumerate(rows)
    )
    instruments = {
        **(_coverage(CUT_CLAIMS) if gold else {}),
        **(_rubric(params["judge_model"]) if judged else {}),
    }
    said = {
        **(_judge_settings(params) if judged else {}),
        **({"labels joined by": "position"} if gold else {}),
    }
    yield ResultSet(
        "gemma fresh", source, items, instruments, role=Role.TEST, task="fresh", settings=said,
        family="gemma",
    )  # fmt: skip


def _gold_labels(files: Files, kind: str) -> list[dict[str, LabelValue | None]]:
    document = files.json(kind)
    coverage, correct = document["coverage"], document["labels"]
    require_same_length(files.path(kind), {"coverage": len(coverage), "labels": len(correct)})
    return [
        {"coverage": clean(share), "correct": None if label is None else bool(label)}
        for share, label in zip(coverage, correct, strict=True)
    ]


def _fresh_claim_counts(files: Files) -> dict[int, int | None]:
    """Claims by fresh prompt, from both models' shares of the same checklist."""
    kinds = [k for k in ("gemma_fresh_gold", "smollm_fresh_gold") if files.has(k)]
    shares: dict[int, list[float]] = {}
    for kind in kinds:
        for i, share in enumerate(files.json(kind)["coverage"]):
            if share is not None:
                shares.setdefault(i, []).append(share)
    return {i: claim_count(found) for i, found in shares.items()}


def _smollm_fresh(files: Files) -> Iterator[ResultSet]:
    if not files.has("smollm_fresh_gold"):
        return
    labels = _gold_labels(files, "smollm_fresh_gold")
    prompts = _fresh_prompts(files)
    if prompts:
        lengths = {"labels": len(labels), "prompts of judge_v4_fresh": len(prompts)}
        require_same_length(files.path("smollm_fresh_gold"), lengths)
    counts = _fresh_claim_counts(files)
    items = tuple(
        Item(
            item_id=f"fresh/{i}",
            prompt=prompts[i] if prompts else None,
            n_parts=counts.get(i),
            labels=row,
        )
        for i, row in enumerate(labels)
    )
    yield ResultSet(
        "smollm fresh", files.path("smollm_fresh_gold"), items, _coverage(CUT_CLAIMS),
        role=Role.TEST, task="fresh", family="smollm",
        settings={"prompts and features joined by": "position"},
        features=_features(files, "smollm_fresh_features", items),
    )  # fmt: skip


def _fresh_prompts(files: Files) -> list[str]:
    if not files.has("judge_v4_fresh"):
        return []
    return [row["prompt"] for row in files.json("judge_v4_fresh")["items"]]


def _features(files: Files, kind: str, items: Sequence[Item]) -> Features | None:
    if not files.has(kind):
        return None
    return arrays.read_features(files.path(kind), [item.item_id for item in items])


def _profiles(files: Files) -> Iterator[ResultSet]:
    """Two models' step16 sets, and the retracted one of eight samples a prompt."""
    for kind, (family, cut) in PROFILES.items():
        if files.has(kind):
            yield _profile(files, kind, family, cut)


def _profile(files: Files, kind: str, family: str, cut: int) -> ResultSet:
    document = files.json(kind)
    retracted = family == "retracted"
    judge = filled_text(document.get("config", {}).get("judge_model"))
    counts = _claim_counts(files)
    # The retracted samples answer other prompts than the index says (L2): no prompt is theirs.
    prompts = {} if retracted else _step16_prompts(files)
    items = tuple(
        _profile_item(row, counts[row["prompt_i"]], prompts, several=retracted)
        for row in document["samples"]
    )
    require_distinct(items, str(files.path(kind)))
    summary = document["summary"]
    return ResultSet(
        f"{family} step16" if not retracted else "gemma step16, 800 samples (retracted)",
        files.path(kind), items, {**_coverage(None, judge), **_verbal(cut, judge)},
        role=Role.TRAIN if not retracted else None, task="step16", family=family,
        settings=flatten({name: summary.get(name) for name in ("model_id", "tag")}),
        reported=tuple(
            Reported(name, float(value), has_interval=False)
            for name, value in summary["rates"].items()
        ),
        features=_checked_features(files, items) if family == "smollm" else None,
    )  # fmt: skip


def _profile_item(
    row: Mapping[str, Any], parts: int | None, prompts: Mapping[int, str], *, several: bool
) -> Item:
    prompt_id = step16(row["prompt_i"])
    return Item(
        item_id=f"{prompt_id}/{row['sample_idx']}" if several else prompt_id,
        prompt=prompts.get(row["prompt_i"]),
        response=row["text"],
        topic=filled_text(row["topic"]),
        group=prompt_id if several else None,
        n_parts=parts,
        labels={name: clean(row[name]) for name in ("coverage", "correct", "verbal")},
    )


def _step16_prompts(files: Files) -> dict[int, str]:
    if not files.has("judge_v4_step16"):
        return {}
    return {row["i"]: row["prompt"] for row in files.json("judge_v4_step16")["items"]}


def _checked_features(files: Files, items: Sequence[Item]) -> Features | None:
    """SmolLM's training features; their file repeats the coverage, which must be the items'."""
    features = _features(files, "smollm_step16_features", items)
    if features is None:
        return None
    stored = arrays.load(files.path("smollm_step16_features")).columns.get("coverage")
    for row, item in enumerate(items if stored is not None else ()):
        share = item.labels["coverage"]
        if stored is not None and isinstance(share, float) and abs(stored[row] - share) > 1e-3:
            raise ValueError(f"coverage of row {row} is not that of {item.item_id}")
    return features


BUILDERS = (_gemma_step16, _gemma_fresh, _profiles, _smollm_fresh)
"""Each gives the sets of the files that are there."""
