"""Runs of ``eval`` and ``arc1``: pass@1 of problems whose answers are executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from arcs.arc1 import evaluation
from arcs.claims import ReasonCode
from arcs.evaluate.config import (
    BASE,
    CONTROL,
    Condition,
    EvalConfig,
    as_begun,
    conditions_of,
    parse,
)
from arcs.evaluate.decoding import Arm, reference_of
from arcs.gates import Gates
from arcs.instrument import Only, differing
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from arcs.settling.opened import why_not
from arcs.settling.subject import OWN, OpenClaim, Piece, Pool, Seen
from arcs.settling.unused import Source, file_of, in_hash_order, pools
from arcs.subruns import sub_run
from arcs.trained_on import wordings
from arcs.verdicts import Results, compare
from backends.lora import adapter_sha256
from evals.benchmarks import TITLES, Benchmark, load_benchmark
from evals.humaneval.outcomes import ItemResult, Outcome
from models.errors import UserError
from models.store import prepare

EVAL, ARC1 = "eval", "arc1"
ITEMS = "items.jsonl"
SAME = ("chat", "sandbox", "gates")
"""What of a manifest the answers of all looks must share."""
_OF_ARC1 = (
    "benchmark", "model", "thinking", "prompt_style", "kv_dtype", "width", "gpu_layers",
    "allow_weak_sandbox", "limit",
)  # fmt: skip


@dataclass(frozen=True)
class Coding:
    """See :class:`arcs.settling.subject.Subject`."""

    run: Path
    kind: str
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gates: Gates
    config: EvalConfig
    """With the budgets that the run ended with; of arc1, the evaluation that gives its answers."""
    claims: tuple[OpenClaim, ...]
    others: tuple[tuple[str, str], ...]
    kinds: str = "tasks in HumanEval's form (docs/eval.md), or humaneval, small"

    @classmethod
    def of(cls, run: Path, manifest: Mapping[str, Any], gates: Gates) -> Coding:
        """Read a finished run. Raises UserError for what cannot be gone on with."""
        metrics = StoredRun(run).metrics
        if metrics is None:
            raise UserError(f"{run}: it is not finished; finish it with --run first")
        kind = str(manifest["arc"])
        config = _config_of_arc1(run, manifest) if kind == ARC1 else parse(
            as_begun(manifest["config"]))  # fmt: skip
        if config.samples > 1:
            raise UserError(f"{run}: --samples {config.samples}: settle goes on with runs of one "
                            "answer a problem")  # fmt: skip
        if config.fast:
            raise UserError(f"{run}: --fast: its texts depend on what was decoded beside them, so "
                            "it cannot be gone on with")  # fmt: skip
        budgets = tuple(metrics["n_predict"]) if kind == EVAL else tuple(
            one["n_predict"] for one in metrics["budgets"])  # fmt: skip
        config = config.model_copy(update={"n_predict": budgets, "escalate": None})
        found = _claims_of_eval(metrics) if kind == EVAL else [
            ("pass@1", BASE, config.quantisations[0], metrics["claim"])]  # fmt: skip
        open_ones, others = [], []
        for name, condition, quantisation, claim in found:
            why = why_not(claim)
            if why is None:
                smallest = float(claim["gate"]["smallest_effect"])
                open_ones.append(
                    OpenClaim(name, condition, quantisation, "", claim, smallest, None)
                )
            else:
                others.append((name, why))
        return cls(run, kind, manifest, metrics, gates, config, tuple(open_ones), tuple(others))

    @property
    def files(self) -> tuple[str, ...]:
        """What the claims rest on."""
        return (METRICS, ITEMS)

    @property
    def first_counts(self) -> Mapping[str, int]:
        """Problems."""
        return {"": len(self._used)}

    @property
    def seconds_per_item(self) -> float | None:
        """Decoding of the base and of open conditions, and running their code."""
        phases = ((StoredRun(self.run).timing or {}).get("phases") or {}).items()
        arms = {name for claim in self.claims for name in self._first_arms(claim)}
        wanted = {f"decode {arm}" for arm in arms}  # escalations go on: "decode base to 2048"
        decoded = [one["seconds"] for name, one in phases if name.split(" to ")[0] in wanted]
        executed = [one["seconds"] for name, one in phases if name.startswith("execute")]
        if not decoded or not self._used:
            return None
        return float(sum(decoded) + sum(executed)) / len(self._used)

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        """See the protocol."""
        own = self._benchmark(OWN)
        more = [self._source(_named(name), load_benchmark(_named(name))) for name in data]
        adapters = [one.adapter for one in self._conditions if one.adapter is not None]
        return pools(self._source(OWN, own), self._used, more, adapters, say.say)

    def require_same_edits(self) -> None:
        """See the protocol."""
        directory = prepare(self.config.model)
        if directory.fingerprint != self.manifest["model"]["fingerprint"]:
            raise UserError(f"{self.config.model}: its weights are no longer those of {self.run}")
        for one in self._conditions:
            if one.adapter is None:
                continue
            stated = (self.manifest["adapter"] if self.kind == ARC1
                      else self.manifest["adapters"][one.name])["sha256"]  # fmt: skip
            if adapter_sha256(one.adapter) != stated:
                raise UserError(f"{one.adapter}: it is no longer the adapter of {self.run}")

    def values(self, claim: OpenClaim, piece: Piece) -> list[float]:
        """-1, 0 or 1 an item, at the largest n_predict."""
        base, edited = (
            sorted(side[self.config.n_predict[-1]], key=lambda one: one.item_id)
            for side in self._sides(claim, piece)
        )
        if [one.item_id for one in base] != [one.item_id for one in edited]:
            raise UserError(f"{piece.path}: {claim.key} and its base hold different items")
        return [float(e.passed) - float(b.passed) for b, e in zip(base, edited, strict=True)
                if b.passed is not None and e.passed is not None]  # fmt: skip

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """By the rules of arcs.verdicts, over all pieces."""
        base: dict[int, list[ItemResult]] = {n: [] for n in self.config.n_predict}
        edited: dict[int, list[ItemResult]] = {n: [] for n in self.config.n_predict}
        faults: set[str] = set()
        for place, piece in enumerate(pieces):
            for whole, side in zip((base, edited), self._sides(claim, piece), strict=True):
                for n, results in side.items():
                    whole[n] += [replace(one, item_id=f"{place}:{one.item_id}") for one in results]
            faults |= self._faults(claim, piece)
        differs = ReasonCode.INSTRUMENT_DIFFERS.value in faults
        found = compare(
            base, edited, gates,
            base_settings="same", edited_settings="other" if differs else "same",
            trained_on_test=ReasonCode.TRAIN_TEST_OVERLAP.value in faults,
        ).claim  # fmt: skip
        return Seen.of(found)

    def go_on(
        self,
        pool: Pool,
        ids: Sequence[str],
        claims: Sequence[OpenClaim],
        path: Path,
        reporter: Reporter,
    ) -> None:
        """See the protocol."""
        from arcs.evaluate.pipeline import run_eval

        config = self._kept(claims).model_copy(
            update={"benchmark": self._name(pool.source), "limit": None, "allow_overlap": False}
        )
        if self._benchmark(pool.source).dataset_sha256 != pool.sha256:
            raise UserError(f"{config.benchmark}: it is no longer the set that was planned with")
        with sub_run(path, EVAL, config.model_dump(mode="json")) as own:
            if not (own.path / METRICS).exists():
                only = Only(frozenset(ids), self._check)
                run_eval(config, own, reporter, with_quality=False, only=only)

    @cached_property
    def _used(self) -> list[str]:
        rows = StoredRun(self.run).lines(ITEMS)
        return list(dict.fromkeys(row["item_id"] for row in rows))

    @cached_property
    def _conditions(self) -> tuple[Condition, ...]:
        return conditions_of(self._kept(self.claims))

    def _name(self, source: str) -> str:
        return self.config.benchmark if source == OWN else source

    def _benchmark(self, source: str) -> Benchmark:
        found = load_benchmark(self._name(source))
        if source == OWN and found.dataset_sha256 != self.manifest["evaluation"]["dataset_sha256"]:
            raise UserError(f"{found.name}: its problems are no longer those of {self.run}")
        return found

    def _source(self, source: str, benchmark: Benchmark) -> Source:
        asked = wordings(benchmark.problems)
        order = in_hash_order(list(asked))
        return Source(source, benchmark.title, benchmark.dataset_sha256,
                      {item: asked[item] for item in order}, dict.fromkeys(order, ""))  # fmt: skip

    def _kept(self, claims: Sequence[OpenClaim]) -> EvalConfig:
        """The settings with no more conditions than these claims need, all under their own names.

        Settings of heads share their control's storage form, so of them all are kept or none.
        """
        if self.kind == ARC1:
            return self.config
        wanted = {claim.condition for claim in claims}
        every = conditions_of(self.config)
        adapters = tuple(one.adapter for one in every if one.adapter and one.name in wanted)
        tempers = any(one.scales is not None and one.name in wanted for one in every)
        kept = self.config.model_copy(update={
            "adapters": adapters,
            "tempers": self.config.tempers if tempers else (),
            "quantisations": tuple(q for q in self.config.quantisations
                                   if q in {claim.part for claim in claims}),
        })  # fmt: skip
        if wanted <= {one.name for one in conditions_of(kept)}:
            return kept
        return kept.model_copy(update={"adapters": self.config.adapters})

    def _first_arms(self, claim: OpenClaim) -> tuple[str, str]:
        """Base and edit, as the run itself calls them."""
        return (evaluation.BASE, evaluation.TRAINED) if self.kind == ARC1 else self._arms(claim)

    def _arms(self, claim: OpenClaim) -> tuple[str, str]:
        """Base and edit, as an evaluation calls them."""
        every = conditions_of(self.config)
        if self.kind == ARC1:
            edit = next(one for one in every if one.adapter is not None)
        else:
            edit = next(one for one in every if one.name == claim.condition)
        base = reference_of(every, edit)
        return Arm(claim.part, base).name, Arm(claim.part, edit).name

    def _sides(self, claim: OpenClaim, piece: Piece) -> tuple[Results, Results]:
        arms = self._first_arms(claim) if piece.first else self._arms(claim)
        tables = _tables(piece.path)
        missing = next((arm for arm in arms if arm not in tables), None)
        if missing is not None:
            raise UserError(f"{piece.path / ITEMS}: no answers of {missing}; the run is damaged")
        return tables[arms[0]], tables[arms[1]]

    def _faults(self, claim: OpenClaim, piece: Piece) -> set[str]:
        """What the run of the new items found wrong with its own instrument."""
        if piece.first:
            return set()
        conditions = (StoredRun(piece.path).metrics or {})["quantisations"][claim.part]
        name = next(one.name for one in conditions_of(self.config)
                    if Arm(claim.part, one).name == self._arms(claim)[1])  # fmt: skip
        return set(conditions[name]["comparison"]["claim"]["reasons"])

    def _check(self, arm: str, engine: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Raise UserError where new items would be answered by another instrument."""
        for name in SAME:
            if manifest.get(name) != self.manifest.get(name):
                raise UserError(f"{self.run}: {name} was another when it was run, so its items and "
                                "new ones cannot be pooled; evaluate all of them anew")  # fmt: skip
        templates = [
            one["evaluation"]["prompt_template_sha256"] for one in (self.manifest, manifest)
        ]
        key = "prompt_template_sha256" if templates[0] != templates[1] else differing(
            self._engine(arm), engine)  # fmt: skip
        if key is not None:
            raise UserError(
                f"{self.run}: {arm} was decoded with {key} {self._engine(arm).get(key)}, and new "
                f"items would be with {engine.get(key)}; settle where it was run, or evaluate all "
                "items anew"
            )

    def _engine(self, arm: str) -> Mapping[str, Any]:
        """What decoded an arm of the run."""
        if self.kind == ARC1:
            base = arm == self._arms(self.claims[0])[0]
            own: Mapping[str, Any] = self.manifest[
                f"engine_{evaluation.BASE if base else evaluation.TRAINED}"]  # fmt: skip
            return {**own, "processor": self.manifest["hardware"]["processor"]}
        first = self.manifest["config"]["n_predict"][-1]
        found: Mapping[str, Any] = self.manifest[f"engine.{arm}.{first}"]
        return found


def _claims_of_eval(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    several = len(metrics["quantisations"]) > 1
    return [
        (f"{name} ({q})" if several else name, name, q, found["comparison"]["claim"])
        for q, conditions in metrics["quantisations"].items()
        for name, found in conditions.items()
        if name not in (BASE, CONTROL) and found["comparison"] is not None
    ]


def _config_of_arc1(run: Path, manifest: Mapping[str, Any]) -> EvalConfig:
    """The evaluation that decodes as Arc 1 did."""
    config = manifest["config"]
    given = config.get("adapter")
    return parse({
        **{name: config[name] for name in _OF_ARC1},
        "n_predict": tuple(config["n_predict"]),
        "quantisations": (manifest["evaluation"]["quantisation"],),
        "adapters": (Path(given) if given else run.absolute() / "adapter",),
        "threads": manifest["engine_base"]["threads"],
        "share_prefix": False,
    })  # fmt: skip


def _named(name: str) -> str:
    return name if name in TITLES else str(file_of(name))


def _tables(path: Path) -> dict[str, dict[int, list[ItemResult]]]:
    tables: dict[str, dict[int, list[ItemResult]]] = {}
    for row in StoredRun(path).lines(ITEMS):
        result = ItemResult(
            row["item_id"], Outcome(row["outcome"]), row["truncated"], row["loop"],
            hashlib.sha256(row["text"].encode()).hexdigest(),
        )  # fmt: skip
        tables.setdefault(row["arm"], {}).setdefault(row["n_predict"], []).append(result)
    return tables
