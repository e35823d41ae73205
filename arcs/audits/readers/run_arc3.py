"""A finished run of Arc 3: both sets with labels and h_last, its declared probe, its claim.

Ids are not turned into texts: that would need the model's tokenizer, and audits need no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arcs.audits.readers.source import flatten, read_json, read_json_lines, require_distinct
from arcs.audits.results import (
    Claim,
    Features,
    Instrument,
    Item,
    LabelKind,
    OperatingPoint,
    ProbeResult,
    Results,
    ResultSet,
    Role,
)
from evals.truncation import repetition_loop

Json = Mapping[str, Any]
ROLES = {"train": Role.TRAIN, "fresh": Role.TEST}
RIGHT, ASSERTED = "right", "asserted"
AXES = (RIGHT, ASSERTED)
LABELS, RESPONSES = "labels.json", "responses.jsonl"
NEEDED = (LABELS, RESPONSES, "features-train.safetensors", "features-fresh.safetensors")
NOT_READ = "texts of prompts and responses: ids are stored, and no model is opened to decode them"


def read(folder: Path, manifest: Json, metrics: Json, family: str | None) -> Results:
    """One run's sets, probe and claim. Raises UserError, or KeyError for a record that lacks."""
    labels = read_json(folder / LABELS)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ROLES}
    for _, record in read_json_lines(folder / RESPONSES):
        rows[record["set"]].append(record)
    sets = tuple(
        _set(folder, name, rows[name], labels, manifest, metrics, family) for name in ROLES
    )
    return Results(
        folder,
        "threearc run",
        sets=sets,
        probes=tuple(_probe(folder, metrics, family)),
        claims=tuple(_claim(folder, metrics)),
        skipped=(f"{folder}: {NOT_READ}",),
    )


def _set(
    folder: Path,
    name: str,
    rows: list[dict[str, Any]],
    labels: Json,
    manifest: Json,
    metrics: Json,
    family: str | None,
) -> ResultSet:
    items = tuple(_item(row, labels) for row in rows)
    require_distinct(items, f"{folder / RESPONSES} ({name})")
    return ResultSet(
        name=f"{folder.name} {name}",
        source=folder / RESPONSES,
        items=items,
        instruments=_instruments(manifest, metrics, labels),
        role=ROLES[name],
        task=manifest["questions"]["items"],
        n_predict=manifest["questions"]["n_predict"],
        settings=_settings(manifest),
        features=_features(folder, name, manifest),
        family=family,
    )


def _item(row: Json, labels: Json) -> Item:
    item_id, ids = row["item_id"], row["ids"]
    cut = row["finish_reason"] == "length"
    return Item(
        item_id=item_id,
        finish_reason=row["finish_reason"],
        generated_tokens=len(ids),
        repetition_loop=cut and repetition_loop(ids) is not None,
        group=labels["group"][item_id] if "group" in labels else None,
        labels={axis: labels[axis][item_id] for axis in AXES if axis in labels},
    )


def _instruments(manifest: Json, metrics: Json, labels: Json) -> Mapping[str, Instrument]:
    made = metrics["made_with"]
    who = {RIGHT: manifest["labels"], ASSERTED: (made.get("delivery") or {}).get("judge")}
    return {
        axis: Instrument(axis, LabelKind.PASS, judge=_named(who[axis]))
        for axis in AXES
        if axis in labels
    }


def _named(of: Json | None) -> str | None:
    """What labelled, with its version, as one text."""
    return None if of is None else "; ".join(f"{k} {v}" for k, v in sorted(flatten(of).items()))


def _settings(manifest: Json) -> Mapping[str, str]:
    """Of the answers: another engine's where they were read from another run."""
    borrowed = manifest.get("ids_from")
    engine = (borrowed.get("engine") or {}) if borrowed else manifest["engine"]
    return {**engine_settings(engine, manifest), "decoding": "greedy"}


def engine_settings(engine: Json, manifest: Json) -> dict[str, str]:
    """What loads a model and decides how it is prompted; threads and versions are neither."""
    said = {key: engine[key] for key in ("engine", "dtype", "file_type", "quant") if key in engine}
    chat = manifest.get("chat") or {}
    raw = chat.get("raw_template") or {}
    template = {"template_sha256": chat.get("template_sha256"), "raw_template": raw.get("sha256")}
    return {**flatten(said, "engine."), **flatten(template, "chat.")}


def _features(folder: Path, name: str, manifest: Json) -> Features:
    from arcs.arc3 import features

    found = features.read(folder / f"features-{name}.safetensors")
    definition = found.definition
    stored = engine_settings(definition["engine"], manifest)
    return Features(
        found.arrays["h_last"],
        found.item_ids,
        settings={**stored, "position": str(definition["position"])},
    )


def _probe(folder: Path, metrics: Json, family: str | None) -> Iterator[ProbeResult]:
    """The one that was declared beforehand: the others were no candidates for the claim."""
    for one in metrics["probes"] or ():
        if not one["primary"] or one["fresh"] is None:
            continue
        fresh = one["fresh"]
        yield ProbeResult(
            name=one["features"],
            source=folder / "metrics.json",
            configuration=one["probe"].replace("logistic ", ""),
            run=folder.name,
            train_auc=one["train"]["out_of_fold_auc"],
            test_auc=fresh["auc"],
            n_positive=fresh["n_right"],
            n_negative=fresh["n_wrong"],
            operating_point=_operating_point(metrics["gate"]),
            null_reported=True,
            family=family,
        )


def _operating_point(gate: Json | None) -> OperatingPoint | None:
    at = None if gate is None else gate["fresh"]
    if at is None:
        return None
    return OperatingPoint(
        at["threshold"], at["asymmetry"], at["p_assert_wrong"], at["p_assert_correct"], Role.TRAIN
    )


def _claim(folder: Path, metrics: Json) -> Iterator[Claim]:
    """What the run claims of fresh prompts, where it does: the verdict is SUPPORTED."""
    claim = metrics["claims"]["transfer"]
    estimate = claim["estimate"]
    if claim["verdict"] == "SUPPORTED" and estimate is not None:
        effect, n = estimate["value"] - 0.5, estimate["n"]
        right = metrics["sets"]["fresh"]["right"]
        yield Claim(claim["statement"], folder / "metrics.json", effect, "auc", n, right)
