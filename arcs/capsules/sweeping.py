"""Runs of ``arc2`` in a capsule: every answer and reading at every point of the sweep, with labels.

The heads' outputs are held where the damped heads were ranked by their size, the ablations where
by what they do; from a ranking by direction the heads are as stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arcs.arc2 import stages
from arcs.arc2.config import Arc2Config, parse
from arcs.arc2.gguf_sweep import UNTOUCHED, WHAT
from arcs.arc2.pipeline import ABLATIONS, HEADS
from arcs.arc2.selection import BASE, Point, Selection, points
from arcs.arc2.transcripts import TASKS
from arcs.capsules.arrays import packed, unpacked
from arcs.report.stored import StoredRun, as_damage
from arcs.runs import METRICS
from arcs.transcripts import TRANSCRIPTS
from backends.interface import Head
from models.errors import UserError
from models.fingerprint import file_sha256

KIND = "arc2"
LABEL = ("right", "asserted", "open", "coverage")
"""What of an answer its labels say."""


def contents(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Claim, words and rows. Raises UserError for a run that is not finished, or is damaged."""
    stored = StoredRun(run)
    if stored.metrics is None or not stored.has(TRANSCRIPTS):
        lacking = METRICS if stored.metrics is None else TRANSCRIPTS
        raise UserError(f"{run}: no {lacking}; finish the run with threearc arc2 --run {run}")
    with as_damage(str(run)):
        config, metrics = parse(manifest["config"]), stored.metrics
        needed = [METRICS, TRANSCRIPTS]
        labels = dict(_labels(stored))
        rows: list[dict[str, Any]] = []
        readings: list[dict[str, Any]] = []
        for point in points_of(manifest, config):
            for seed in config.decodings:
                name = stages.answers_file(point, seed)
                needed.append(name)
                rows += [_row(point, seed, one, labels) for one in stored.lines(name)]
            if manifest["meter"] is not None:
                name = stages.meter_file(point)
                needed.append(name)
                readings += [{"arm": point.name, **one} for one in stored.lines(name)]
        ablations = None
        if config.causal_items:
            needed.append(ABLATIONS)
            ablations = list(stored.lines(ABLATIONS))
        return {
            "claims": {KIND: metrics["claim"]},
            "words": metrics["words"],
            "evidence": metrics["evidence"],
            "judge": metrics["judge"],
            "rows": rows,
            "readings": readings,
            "ablations": ablations,
            "norms": _norms(run, manifest) if config.rank_by == "magnitude" else None,
            "files": {name: file_sha256(run / name) for name in needed},
        }


def selection_of(manifest: Mapping[str, Any]) -> Selection:
    """The heads of every arm."""
    found = manifest["selection"]
    arms = {arm: tuple(Head(*one) for one in heads) for arm, heads in found["arms"].items()}
    return Selection(arms, found["random_sets_possible"])


def points_of(manifest: Mapping[str, Any], config: Arc2Config) -> tuple[Point, ...]:
    """Every point of the run's sweep."""
    return points(selection_of(manifest), config.scales, config.controls)


def _labels(stored: StoredRun) -> Iterator[tuple[tuple[str, int | None, str], Mapping[str, Any]]]:
    """By point, seed and item: as the run wrote them when it concluded."""
    for line in stored.lines(TRANSCRIPTS):
        if line["facets"]["asked"] == TASKS:
            continue
        for said in line["answers"]:
            if not said["condition"].startswith(f"{WHAT}."):
                yield (said["condition"], said.get("seed"), line["item_id"]), said


def _row(
    point: Point, seed: int | None, record: Mapping[str, Any], labels: Mapping[Any, Any]
) -> dict[str, Any]:
    said = labels[point.name, seed, record["item_id"]]
    absent = {"open": False}  # a transcript leaves out what is false or missing
    return {
        "arm": point.name, "seed": seed,
        **{key: record[key] for key in ("item_id", "ids", "finish_reason", "near_ties")},
        **{key: said.get(key, absent.get(key)) for key in LABEL},
    }  # fmt: skip


def _norms(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the heads' outputs [answers, heads], of the cohorts' answers that are not empty."""
    told = manifest["attribution"]
    unnamed = [str(place) for place in range(told["answers"])]
    reading = stages.head_reading(unnamed, run / HEADS, told["layers"])
    return {"heads": [list(one) for one in reading.heads], "data": packed(reading.norms)}


def norms_of(found: Mapping[str, Any]) -> tuple[tuple[Head, ...], Any]:
    """Heads, and [answers, heads] float32: inverse of what the capsule holds."""
    heads = tuple(Head(*one) for one in found["heads"])
    return heads, unpacked(found["data"], -1, len(heads))


def not_held(config: Arc2Config) -> dict[str, str]:
    """Answers of the run on which no claim of it rests, and that no capsule holds."""
    found = {}
    if config.tasks is not None:
        found[f"tasks ({config.tasks})"] = "the capsule does not hold these answers"
    if config.gguf is not None:
        found[f"llama.cpp ({config.gguf}, {BASE}, {UNTOUCHED.name} and scaled)"] = (
            "the capsule does not hold these answers"
        )
    return found
