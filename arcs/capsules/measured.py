"""Runs of ``measure meter`` and ``measure short-answers`` in a capsule: what was read of every
item, or answered to it, under every condition.

Replayed here: each claim's number from the stored rows, and a sample, read or answered again by
this machine's engine under the base, scaled heads, and edits whose adapter is given. The items ship
with threearc and are held to the hash of the ids that were asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from arcs.arc3.config import GGUF
from arcs.arc3.engine import Engine, opened
from arcs.capsules import metering, short_answering
from arcs.capsules.coding import given_adapters
from arcs.evaluate.config import BASE, heads_of
from arcs.measure.config import METER, SHORT_ANSWERS, conditions_of, parse
from arcs.measure.meter import Meter
from arcs.measure.pipeline import instrument_of
from arcs.measure.short_answers import ShortAnswers
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from backends.interface import LanguageModel
from backends.lora import load_adapter
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.fingerprint import file_sha256
from models.store import prepare

KIND = "measure"
T = TypeVar("T")
KEPT: Mapping[str, tuple[str, ...]] = {METER: metering.KEPT, SHORT_ANSWERS: short_answering.KEPT}
"""Of a row, by instrument."""


def contents(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Claims, conditions and rows. Raises UserError for other instruments, and unfinished runs."""
    config = parse(manifest["config"])
    if config.instrument not in KEPT:
        raise UserError(f"{run}: of measure only {' and '.join(KEPT)} can be put into a capsule, "
                        f"not {config.instrument}")  # fmt: skip
    conditions = conditions_of(config)
    needed = [run / METRICS, *(run / f"{one.slug}.jsonl" for one in conditions)]
    lacking = [path.name for path in needed if not path.is_file()]
    if lacking:
        raise UserError(f"{run}: no {lacking[0]}; finish the run with threearc measure --run {run}")
    stored = StoredRun(run)
    compared = (stored.metrics or {})["conditions"]
    claims = "claims" if config.instrument == METER else "claim"
    return {
        "files": {path.name: file_sha256(path) for path in needed},
        "claims": {one.name: compared[one.name]["comparison"][claims]
                   for one in conditions if one.name != BASE},
        "arms": {
            one.name: {
                "adapter_sha256": manifest["adapters"][one.name]["sha256"] if one.adapter else None,
                "heads": one.name if one.scales is not None else None,
            }
            for one in conditions
        },
        "rows": [{"arm": one.name, **{key: row[key] for key in KEPT[config.instrument]}}
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
    manifest = document["manifest"]
    given = given_adapters(document["arms"], adapters)
    config = parse(manifest["config"])
    directory = prepare(model or config.model, say=reporter.say)
    if directory.fingerprint != manifest["model"]["fingerprint"]:
        raise UserError(f"--model {model or config.model}: its weights are not the capsule's; give "
                        "that model")  # fmt: skip
    instrument = instrument_of(config, ChatEncoder(directory))
    if instrument.describe()["ids_sha256"] != manifest["measurement"]["ids_sha256"]:
        raise UserError(f"the items of {config.instrument} have other ids here than in the "
                        "capsule's run (another version of threearc, or a changed "
                        "tokenizer)")  # fmt: skip
    drawn = np.random.default_rng(seed).permutation(len(instrument.item_ids))[:sample].tolist()
    places = sorted(drawn)
    arms = Arms(document["arms"], given, engine, directory, reporter)
    if isinstance(instrument, Meter):
        found = metering.again(document, instrument, places, arms.each, engine)
    elif isinstance(instrument, ShortAnswers):
        found = short_answering.again(document, instrument, places, arms.each, engine)
    else:
        raise ValueError(f"no capsule holds {config.instrument}")
    return {
        "made_on": f"{manifest['backend']} {config.dtype}",
        "replayed_on": str(engine),
        "sample": {"n": len(places), "of": len(instrument.item_ids), "seed": seed,
                   "items": [instrument.item_ids[place] for place in places]},
        **found,
    }  # fmt: skip


@dataclass(frozen=True)
class Arms:
    """The conditions, and what of them can be made here."""

    arms: Mapping[str, Any]
    given: Mapping[str, Path]
    """Adapters by hash."""
    engine: Engine
    directory: ModelDirectory
    reporter: Reporter

    def each(
        self, longest: int, ask: Callable[[LanguageModel], T]
    ) -> tuple[dict[str, T], dict[str, str]]:
        """What ``ask`` gives under each condition; why it was not asked under the others.

        ``longest``: ids of the longest text.
        """
        found: dict[str, T] = {}
        skipped: dict[str, str] = {}
        for name, arm in self.arms.items():
            sha = arm["adapter_sha256"]
            if sha is not None and sha not in self.given:
                skipped[name] = f"its adapter (sha-256 {sha[:12]}) was not given"
            elif self.engine.name == GGUF and (sha is not None or arm["heads"] is not None):
                skipped[name] = "edits are replayed by torch and mlx only"
            else:
                heads = None if arm["heads"] is None else heads_of(arm["heads"])
                with (
                    self._opened(None if sha is None else self.given[sha], longest) as model,
                    nullcontext() if heads is None else model.tempered(heads),
                ):
                    found[name] = ask(model)
        return found, skipped

    @contextmanager
    def _opened(self, adapter: Path | None, longest: int) -> Iterator[LanguageModel]:
        with opened(self.engine, self.directory, longest=longest, reporter=self.reporter) as model:
            if adapter is not None:
                model.attach_lora(*load_adapter(adapter, self.directory))
            yield model
