"""Runs of ``measure meter`` in a capsule: what was read of every item under every condition.

Replayed here: each claim's shift from the stored contrasts, and the contrasts of a sample, read
again by this machine's engine under the base, scaled heads, and edits whose adapter is given. The
items ship with threearc and are held to the hash of the ids that were read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc3.config import GGUF
from arcs.arc3.engine import Engine, opened
from arcs.capsules.coding import given_adapters
from arcs.evaluate.config import BASE, heads_of
from arcs.measure.config import METER, conditions_of, parse
from arcs.measure.meter import Meter
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from backends.interface import LanguageModel
from backends.lora import load_adapter
from evals.meter import read_pairs
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.fingerprint import file_sha256
from models.store import prepare

KIND = "measure"
TOLERANCE = 1e-3
"""Nats per token of a contrast, both sides in float32. Measured: mean log-probabilities by torch,
MLX and llama.cpp 1.1e-5 apart at most (docs/measure.md), and a contrast has two of them; what is
claimed of the meter is far larger. In fewer bits, or quantised, nothing is promised."""
KEPT = ("item_id", "axis", "domain", "positive", "negative", "contrast")


def contents(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Claims, conditions and rows. Raises UserError for other instruments, and unfinished runs."""
    config = parse(manifest["config"])
    if config.instrument != METER:
        raise UserError(f"{run}: of measure only the meter can be put into a capsule, not "
                        f"{config.instrument}")  # fmt: skip
    conditions = conditions_of(config)
    needed = [run / METRICS, *(run / f"{one.slug}.jsonl" for one in conditions)]
    lacking = [path.name for path in needed if not path.is_file()]
    if lacking:
        raise UserError(f"{run}: no {lacking[0]}; finish the run with threearc measure --run {run}")
    stored = StoredRun(run)
    compared = (stored.metrics or {})["conditions"]
    return {
        "files": {path.name: file_sha256(path) for path in needed},
        "claims": {one.name: compared[one.name]["comparison"]["claims"]
                   for one in conditions if one.name != BASE},
        "arms": {
            one.name: {
                "adapter_sha256": manifest["adapters"][one.name]["sha256"] if one.adapter else None,
                "heads": one.name if one.scales is not None else None,
            }
            for one in conditions
        },
        "rows": [{"arm": one.name, **{key: row[key] for key in KEPT}}
                 for one in conditions for row in stored.lines(f"{one.slug}.jsonl")],
    }  # fmt: skip


def verify(
    document: Mapping[str, Any],
    model: str | None,
    adapters: Sequence[Path],
    engine: Engine,
    sample: int,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Everything that can be said. Raises UserError where model, adapters or items are others."""
    manifest, arms = document["manifest"], document["arms"]
    given = given_adapters(arms, adapters)
    config = parse(manifest["config"])
    directory = prepare(model or config.model, say=reporter.say)
    if directory.fingerprint != manifest["model"]["fingerprint"]:
        raise UserError(f"--model {model or config.model}: its weights are not the capsule's; give "
                        "that model")  # fmt: skip
    meter = Meter.of(ChatEncoder(directory), config.axes, config.limit)
    if meter.describe()["ids_sha256"] != manifest["measurement"]["ids_sha256"]:
        raise UserError("the meter's items have other ids here than in the capsule's run (another "
                        "version of threearc, or a changed tokenizer)")  # fmt: skip
    drawn = np.random.default_rng(seed).permutation(len(meter.pairs))[:sample].tolist()
    places = sorted(drawn)
    read, skipped = _read(arms, given, meter, places, engine, directory, reporter)
    return {
        "made_on": f"{manifest['backend']} {config.dtype}",
        "replayed_on": str(engine),
        "sample": {"n": len(places), "of": len(meter.pairs), "seed": seed,
                   "items": [meter.item_ids[place] for place in places]},
        "numbers": [_number(document, name, axis)
                    for name, claims in document["claims"].items() for axis in claims],
        "readings": {**_compared(document, read, engine, config.dtype), "not_replayed": skipped},
    }  # fmt: skip


def _number(document: Mapping[str, Any], name: str, axis: str) -> dict[str, Any]:
    claim = document["claims"][name][axis]
    contrasts: dict[str, dict[str, float]] = {BASE: {}, name: {}}
    for row in document["rows"]:
        if row["arm"] in contrasts and row["axis"] == axis:
            contrasts[row["arm"]][row["item_id"]] = row["contrast"]
    shifts = [contrasts[name][item] - base for item, base in contrasts[BASE].items()]
    value = float(np.mean(shifts))
    return {
        "quantity": f"shift of {axis}, nats per token, {name}", "stated": claim["delta"],
        "recomputed": value, "n": len(shifts), "tolerance": 1e-12,
        "reproduces": abs(value - claim["delta"]) < 1e-12, "why": None,
    }  # fmt: skip


def _read(
    arms: Mapping[str, Any],
    given: Mapping[str, Path],
    meter: Meter,
    places: Sequence[int],
    engine: Engine,
    directory: ModelDirectory,
    reporter: Reporter,
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """Contrasts by condition and item; why the other conditions were not read."""
    found: dict[tuple[str, str], float] = {}
    skipped: dict[str, str] = {}
    pairs = [meter.pairs[place] for place in places]
    longest = max(len(side.ids) for pair in pairs for side in (pair.positive, pair.negative))
    for name, arm in arms.items():
        sha = arm["adapter_sha256"]
        if sha is not None and sha not in given:
            skipped[name] = f"its adapter (sha-256 {sha[:12]}) was not given"
        elif engine.name == GGUF and (sha is not None or arm["heads"] is not None):
            skipped[name] = "edits are read by torch and mlx only"
        else:
            adapter = None if sha is None else given[sha]
            with _opened(engine, directory, adapter, longest, reporter) as model:
                heads = None if arm["heads"] is None else heads_of(arm["heads"])
                with nullcontext() if heads is None else model.tempered(heads):
                    read = read_pairs(model, pairs)
            found |= {(name, one.item_id): one.contrast for one in read}
    return found, skipped


@contextmanager
def _opened(
    engine: Engine, directory: ModelDirectory, adapter: Path | None, longest: int,
    reporter: Reporter,
) -> Iterator[LanguageModel]:  # fmt: skip
    with opened(engine, directory, longest=longest, reporter=reporter) as model:
        if adapter is not None:
            model.attach_lora(*load_adapter(adapter, directory))
        yield model


def _compared(
    document: Mapping[str, Any],
    read: Mapping[tuple[str, str], float],
    engine: Engine,
    dtype: str,
) -> dict[str, Any]:
    stored = {(row["arm"], row["item_id"]): row["contrast"] for row in document["rows"]}
    apart = {key: abs(value - stored[key]) for key, value in read.items()}
    exact = dtype == "float32" and str(engine).split()[-1] in ("float32", "f32")
    # np.max keeps a nan, which max() hides; what is not within the tolerance is outside
    largest = float(np.max(list(apart.values())))
    median = float(np.median(list(apart.values())))
    return {
        "n": len(apart),
        "distance": {"median": number_or_none(median), "largest": number_or_none(largest)},
        "tolerance": TOLERANCE if exact else None,
        "reproduces": largest <= TOLERANCE if exact else None,
        "outside": [] if not exact else [f"{item}, {arm}" for (arm, item), far in apart.items()
                                         if not far <= TOLERANCE],
    }  # fmt: skip


def number_or_none(value: float) -> float | None:
    """JSON has no nan: None, where a reading was none."""
    return None if math.isnan(value) else value
