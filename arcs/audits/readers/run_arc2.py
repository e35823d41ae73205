"""A finished run of Arc 2: how the arms' answers ended, the rankings of heads, the sweep.

What each answer was labelled is not stored with it, and ids are not turned into texts: that would
need the model's tokenizer, and audits need no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs.audits.readers.run_arc3 import engine_settings
from arcs.audits.readers.source import flatten, read_json_lines, require_distinct
from arcs.audits.results import (
    Effect,
    EffectRanking,
    Intervention,
    Item,
    Results,
    ResultSet,
)
from evals.truncation import repetition_loop
from models.errors import UserError

Json = Mapping[str, Any]
BASE = "base"
NEEDED = ("metrics.json",)
"""Files of answers have a seed in their names where answers were drawn with several."""
DECODING = ("temperature", "top_p", "top_k_tokens", "repetition_penalty")
SIGNED = {"directional": True, "magnitude": False}
"""How each comparison of two groups of answers ranks heads. The causal one compares no groups."""
NOT_READ = (
    "labels and texts of the arms' answers: ids are stored, and no model is opened to decode them",
    "the causal ranking: it compares no two groups, and its own null is in metrics.json",
)


def read(folder: Path, manifest: Json, metrics: Json, family: str | None) -> Results:
    """One run's arms, rankings and sweep. Raises UserError, or KeyError for what is lacking."""
    if not _answers(folder, BASE):
        raise UserError(
            f"{folder}: no answers of the unchanged model (answers.{BASE}.jsonl, or one a seed); "
            "the run is damaged"
        )
    return Results(
        folder,
        "threearc run",
        sets=tuple(_sets(folder, manifest, metrics, family)),
        rankings=tuple(_rankings(folder, metrics)),
        interventions=tuple(_interventions(folder, manifest, metrics)),
        skipped=tuple(f"{folder}: {what}" for what in NOT_READ),
    )


def _sets(folder: Path, manifest: Json, metrics: Json, family: str | None) -> Iterator[ResultSet]:
    labels = manifest.get("labels") or {}
    for point in metrics["sweep"]:
        for seed, path in _answers(folder, point["point"]):
            drawn = "" if seed is None else f" (seed {seed})"
            items = tuple(_item(row) for _, row in read_json_lines(path))
            require_distinct(items, str(path))
            yield ResultSet(
                name=f"{folder.name} {point['point']}{drawn}",
                source=path,
                items=items,
                arm=point["point"],
                task=f"{labels.get('dataset', labels.get('labels', 'answers'))}{drawn}",
                n_predict=labels.get("n_predict"),
                settings=_settings(manifest),
                family=family,
            )


def _answers(folder: Path, point: str) -> list[tuple[int | None, Path]]:
    """Files of a point's answers, one a seed; none where only the meter was read there."""
    name = re.compile(rf"answers\.{re.escape(point)}(?:\.seed(\d+))?\.jsonl")
    found = [(made, path) for path in folder.iterdir() if (made := name.fullmatch(path.name))]
    rows = [(None if made[1] is None else int(made[1]), path) for made, path in found]
    return sorted(rows, key=lambda row: -1 if row[0] is None else row[0])


def _item(row: Json) -> Item:
    cut = row["finish_reason"] == "length"
    return Item(
        item_id=row["item_id"],
        finish_reason=row["finish_reason"],
        generated_tokens=len(row["ids"]),
        repetition_loop=cut and repetition_loop(row["ids"]) is not None,
    )


def _settings(manifest: Json) -> dict[str, str]:
    config = manifest["config"]
    decoding = {key: config[key] for key in DECODING if key in config}
    return {
        **engine_settings(manifest.get("engine") or {}, manifest),
        **flatten(decoding, "decoding."),
    }


def _rankings(folder: Path, metrics: Json) -> Iterator[EffectRanking]:
    cohorts = metrics["cohorts"]
    for method, signed in SIGNED.items():
        ranking = metrics["rankings"].get(method)
        if ranking is None:
            continue
        yield EffectRanking(
            name=f"{folder.name}, {method}",
            source=folder / "metrics.json",
            effects=tuple(
                Effect(f"layer {one['layer']} head {one['head']}", one["effect"])
                for one in ranking["heads"]
            ),
            n_first=cohorts["lacking"],
            n_second=cohorts["having"],
            signed=signed,
            null_reported=ranking["permutations"] is not None,
            cross_fitted=method == "directional",
        )


def _interventions(folder: Path, manifest: Json, metrics: Json) -> Iterator[Intervention]:
    """Each point at each seed of the answers; the unchanged model is the control."""
    seeds: Sequence[int] = manifest["config"].get("seeds") or (manifest["config"]["seed"],)
    for point in metrics["sweep"]:
        for seed in seeds:
            yield Intervention(
                name=point["point"],
                source=folder / "metrics.json",
                sweep=f"{folder.name}, lambda",
                strength=point["lambda"],
                is_control=point["arm"] == BASE,
                seed=seed,
                settings=_settings(manifest),
            )
