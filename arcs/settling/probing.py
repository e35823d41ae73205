"""Runs of ``arc3``: whether h_last tells right from wrong on fresh prompts, on more of them.

Training set and probe stay what they are; only fresh questions are added. What is said of all of
them together is what the run would say (:mod:`arcs.arc3.claims`), at the level of the look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from arcs.arc1.problems import require_solvable
from arcs.arc3 import analysis, claims, features, probing
from arcs.arc3.config import ARC, EXECUTION, JUDGE, MORE, Arc3Config, parse
from arcs.arc3.pipeline import LABELS, More
from arcs.arc3.probing import Study
from arcs.arc3.questions import SETS, describe, encoder_of, questions
from arcs.arc3.responses import RESPONSES
from arcs.arc3.table import Side
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import JudgedClaim
from arcs.explanations import why as reason_in_words
from arcs.gates import Gates
from arcs.instrument import differing
from arcs.measure.config import LEXICAL
from arcs.measure.judged import identity_of
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from arcs.settling.opened import why_not
from arcs.settling.probe_items import items_of, kinds, named, other_source, own_source
from arcs.settling.probe_rows import Rows, Scored, pooled
from arcs.settling.statistic import CHANCE, from_chance
from arcs.settling.subject import OWN, OpenClaim, Piece, Pool, Seen
from arcs.settling.unused import pools
from arcs.subruns import sub_run
from backends.lora import adapter_sha256
from evals.humaneval.execution import Limits
from evals.humaneval.sandbox import detect_level
from evals.judges.lexical import LexicalJudge
from evals.statistics.rates import Interval
from models.errors import UserError
from models.store import prepare

TRANSFER = "transfer"
NEAR = 1e-3
"""The run's own AUC comes out again within so much; one pair of 50 right and 100 wrong answers is a
fifth of it."""
SAME = ("chat", "gates")
"""What of a manifest the answers of all looks must share."""


@dataclass(frozen=True)
class Probing:
    """See :class:`arcs.settling.subject.Subject`."""

    run: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gates: Gates
    config: Arc3Config
    claims: tuple[OpenClaim, ...]
    others: tuple[tuple[str, str], ...]
    kind: str = ARC

    @classmethod
    def of(cls, run: Path, manifest: Mapping[str, Any], gates: Gates) -> Probing:
        """Read a finished run. Raises UserError for what cannot be gone on with."""
        metrics = StoredRun(run).metrics
        if metrics is None:
            raise UserError(f"{run}: it is not finished; finish it with --run first")
        found = metrics["claims"]
        config = parse(manifest["config"])
        own = cls(run, manifest, metrics, gates, config, (), ())
        others = [(name, _beside(claim)) for name, claim in found.items() if name != TRANSFER]
        why = why_not(found[TRANSFER])
        if why is not None:
            return replace(own, others=((TRANSFER, why), *others))
        own._require_settleable()
        return replace(own, claims=(_open(found[TRANSFER]),), others=tuple(others))

    def _require_settleable(self) -> None:
        """Raise UserError where the claim is open and settle cannot add to it."""
        judge = self.config.source.judge
        if judge is not None and judge.kind != LEXICAL:
            raise UserError(
                f"{self.run}: its labels are a judge's ({self.config.labels}), which settle does "
                "not ask again (of an API it would cost money); make a new run with a larger "
                "--limit"
            )
        if self.config.ids_from is not None:
            raise UserError(
                f"{self.run}: its answers are another run's (--ids-from {self.config.ids_from}), "
                "made by another engine; settle that run"
            )
        stored = StoredRun(self.run).document(LABELS) or {}
        lacks = [key for key in ("low", "high", "group") if key not in stored]
        if lacks:
            raise UserError(
                f"{self.run}: its {LABELS} has no {lacks[0]!r} (an older version of threearc made "
                "it), so old and new items cannot be judged together; run arc3 anew"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """What the claim rests on."""
        return (METRICS, LABELS, RESPONSES, *(features.path_of(self.run, n).name for n in SETS))

    @property
    def first_counts(self) -> Mapping[str, int]:
        """Fresh answers that have a label and the position."""
        return {"": len(self._rows.fresh(self._first).y)}

    @property
    def seconds_per_item(self) -> float | None:
        """Answering, reading features, and running programs."""
        phases = (StoredRun(self.run).timing or {}).get("phases") or {}
        asked = sum(self.metrics["sets"][name]["answers"]["n"] for name in SETS)
        wanted = ("answer", "features", *(("label",) if self.config.kind == EXECUTION else ()))
        known = [phases[name]["seconds"] for name in wanted if name in phases]
        return float(sum(known)) / asked if len(known) == len(wanted) else None

    @property
    def kinds(self) -> str:
        """Of a file."""
        return kinds(self.config.asked)

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        """See the protocol."""
        self._require_same_items()
        adapters = [] if self.config.adapter is None else [self.config.adapter]
        asked, trained = self.config.asked, self.manifest["questions"]["train"]["groups"]
        more = [other_source(named(one, asked), asked, trained) for one in data]
        return pools(own_source(asked, self._used), self._used, more, adapters, say.say)

    def require_same_edits(self) -> None:
        """See the protocol."""
        stated = self.manifest["model"]
        base = (stated.get("base") or stated)["fingerprint"]
        if self._directory.fingerprint != base:
            raise UserError(f"{self.config.model}: its weights are no longer those of {self.run}")
        adapter = self.config.adapter
        if adapter is not None and adapter_sha256(adapter) != stated["adapter"]["sha256"]:
            raise UserError(f"{adapter}: it is no longer the adapter of {self.run}")

    def values(self, claim: OpenClaim, piece: Piece) -> Scored:
        """Of each answer, the probe's score and whether it is right."""
        del claim
        found = self._rows.scored(piece)
        if piece.first:
            self._require_same_auc(found)
        return found

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """By the rules of the run, over all pieces, its controls included."""
        del claim
        fresh = pooled([self._rows.fresh(piece) for piece in pieces])
        both = Study(self._rows.train, fresh, self.config.sizes, self.config.seed, gates.level)
        return seen(self._judged(both, gates))

    def go_on(
        self,
        pool: Pool,
        ids: Sequence[str],
        claims: Sequence[OpenClaim],
        path: Path,
        reporter: Reporter,
    ) -> None:
        """See the protocol."""
        from arcs.arc3.further import run_more

        del claims
        every = items_of(pool.source, self.config.asked)
        if every.sha256 != pool.sha256:
            raise UserError(f"{pool.source}: it is no longer the set that was planned with")
        chosen = every.picked(ids)
        if chosen.benchmark is not None:
            level = detect_level(allow_weak=self.config.allow_weak_sandbox)
            require_solvable(chosen.benchmark, chosen.benchmark.problems, level, Limits(), reporter)
        engine = str(self.manifest["backend"]).split()[0]
        config = self.config.model_copy(update={"backend": engine, "difficulty": None})
        more = More(
            pool.title, tuple(chosen.of),
            str(self.manifest["model"].get("verification", "not known")), self._check, chosen.kinds,
        )  # fmt: skip
        with sub_run(path, MORE, config.model_dump(mode="json")) as own:
            if not (own.path / METRICS).exists():
                run_more(config, own, reporter, more)

    # What is said -------------------------------------------------------------------------------

    def _judged(self, both: Study, gates: Gates) -> JudgedClaim:
        """What training said stays said at the run's own level: it is looked at once."""
        alpha = self.gates.test.alpha
        no_signal = {name: found["p_value"] >= alpha for name, found in self._in_training.items()}
        planted, shuffled = (
            analysis.control(one, gates, no_signal=no_signal[name]).verdict
            for name, one in (
                ("planted", probing.planted(both)), ("shuffled", probing.placebo(both))
            )
        )  # fmt: skip
        doubts = list(claims.cliff(both, alpha))
        if shuffled is Verdict.SUPPORTED:
            doubts.append(ReasonCode.PLACEBO_SHOWN)
        first = claims.transfer(
            both, gates, no_signal=no_signal[TRANSFER], faults=self._faults(both.fresh),
            more_doubts=doubts,
        )  # fmt: skip
        return claims.held_to_controls(first, planted=planted)

    @property
    def _in_training(self) -> Mapping[str, Mapping[str, Any]]:
        """The probe against permuted labels, and so those of the controls."""
        controls = self.metrics["controls"]
        own = {TRANSFER: self.metrics["permutation"]}
        return {**own, **{name: controls[name]["training"] for name in ("planted", "shuffled")}}

    def _faults(self, fresh: Side) -> tuple[ReasonCode, ...]:
        """As in the run, of all fresh answers together."""
        most, n = self.gates.validity.max_missing_share, len(fresh.y)
        if fresh.without_label > most * (n + fresh.without_label + fresh.without_features):
            return (ReasonCode.INFRASTRUCTURE,)
        if fresh.without_features > most * (n + fresh.without_features):
            return (ReasonCode.NO_POSITION,)
        return ()

    # What lies on disk --------------------------------------------------------------------------

    @property
    def _first(self) -> Piece:
        return Piece(OWN, self.run, first=True)

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self.run)

    def _require_same_auc(self, values: Scored) -> None:
        """Raise UserError where the run's own answers do not give its own number."""
        own = _open(self.metrics["claims"][TRANSFER])
        now, stated = own.statistic.summary(values), own.stated["delta"]
        if now.n != own.stated["n_items"] or abs(now.delta - stated) > NEAR:
            raise UserError(
                f"{self.run}: its answers give an AUC of {now.delta + CHANCE:.3f} (n = {now.n}) "
                f"here, and {stated + CHANCE:.3f} (n = {own.stated['n_items']}) in the run; its "
                "files, or threearc's probe, have changed: run arc3 anew"
            )

    # Questions ----------------------------------------------------------------------------------

    @cached_property
    def _directory(self) -> Any:
        return prepare(self.config.model)

    @cached_property
    def _used(self) -> list[str]:
        return [row["item_id"] for row in StoredRun(self.run).lines(RESPONSES)]

    def _require_same_items(self) -> None:
        """Raise UserError where the run's questions are no longer those it was asked."""
        encoder = encoder_of(self._directory, self.config.labels)
        now = describe(questions(self.config.asked, encoder, self.config.per_set),
                       self.config.asked)  # fmt: skip
        then = self.manifest["questions"]
        changed = next((name for name in SETS if now[name] != then[name]), None)
        if changed is not None:
            raise UserError(f"{self.run}: its {changed} questions have other words or other kinds "
                            "now than in the run, so old and new ones cannot be pooled; run arc3 "
                            "anew")  # fmt: skip

    # The instrument -----------------------------------------------------------------------------

    def _check(self, definition: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Raise UserError where new items would be answered or read by another instrument."""
        for key in SAME:
            if manifest.get(key) != self.manifest.get(key):
                raise UserError(f"{self.run}: {key} was another when it was run, so its items and "
                                "new ones cannot be pooled; run arc3 anew")  # fmt: skip
        self._require_same_labels()
        answered = self.manifest["engine"]
        other = differing(answered, definition["engine"])
        if other is not None:
            raise UserError(
                f"{self.run}: it was answered with {other} {answered.get(other)}, and new items "
                f"would be with {definition['engine'].get(other)}; settle where it was run, or run "
                "arc3 anew"
            )
        self._rows.require_same(definition)

    def _require_same_labels(self) -> None:
        """Raise UserError where new answers would be labelled by other rules, or programs run under
        another isolation or other limits."""
        now: dict[str, Any] = {}
        if self.config.kind == EXECUTION:
            level = detect_level(allow_weak=self.config.allow_weak_sandbox)
            now = {"sandbox": level.name, "limits": Limits().description()}
        elif self.config.kind == JUDGE:
            now = {"judge": identity_of(LexicalJudge())}
        was = self.manifest.get("labels") or {}
        other = next((key for key in now if was.get(key) != now[key]), None)
        if other is not None:
            raise UserError(
                f"{self.run}: its answers were labelled with {other} {was.get(other)}, and new "
                f"ones would be with {now[other]}; settle where it was run, or run arc3 anew"
            )


def seen(claim: JudgedClaim) -> Seen:
    """With the number from chance on, and its words."""
    found = claim.estimate
    assert found is not None  # the run itself had both classes
    interval = found.interval
    reasons = "; ".join(reason_in_words(one) for one in claim.reasons)
    said = (
        f"{reasons[0].upper()}{reasons[1:]}. AUC {found.value:.3f} {_shown(interval)}, "
        f"{found.test} p = {found.p_value:.2g}, n = {found.n} fresh answers"
    )
    return Seen(claim.verdict, claim.reasons, from_chance(interval).to_json(), found.p_value, said)


def _shown(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _open(claim: Mapping[str, Any]) -> OpenClaim:
    """The run's claim, with its number from chance on as of a difference."""
    found = claim["estimate"]
    interval = from_chance(Interval(**found["interval"]))
    stated = {
        "statement": claim["statement"], "verdict": claim["verdict"], "reasons": claim["reasons"],
        "n_items": found["n"], "delta": found["value"] - CHANCE, "interval": interval.to_json(),
        "p_value": found["p_value"], "n_to_settle": claim["n_to_settle"],
    }  # fmt: skip
    return OpenClaim(TRANSFER, "", "", "", stated, float(claim["smallest_effect"]), None, auc=True)


def _beside(claim: Mapping[str, Any]) -> str:
    """Of a claim that is not the run's first."""
    if Verdict(claim["verdict"]) in (Verdict.SUPPORTED, Verdict.REFUTED):
        return str(why_not(claim))
    named = f"{claim['verdict']} ({', '.join(claim['reasons']).replace('_', ' ')})"
    return f"{named}: it stays as it is, since settle goes on with {TRANSFER} alone"
