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

import numpy as np

from arcs.arc3 import analysis, claims, features, probing
from arcs.arc3.config import EXACT_MATCH, JUDGE, Arc3Config, parse
from arcs.arc3.pipeline import LABELS, More, dataset_of, wordings_of
from arcs.arc3.probing import H_LAST, Study
from arcs.arc3.questions import (
    RECALL,
    SETS,
    SHORT_ANSWERS,
    describe,
    encoder_of,
    group_of,
    questions,
    short_answers,
)
from arcs.arc3.responses import RESPONSES
from arcs.arc3.table import Side
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import JudgedClaim
from arcs.explanations import why as reason_in_words
from arcs.falsification.evidence import side_of
from arcs.falsification.finished_run import RIGHT, FinishedRun
from arcs.gates import Gates
from arcs.instrument import differing
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from arcs.settling.opened import why_not
from arcs.settling.statistic import CHANCE, from_chance
from arcs.settling.subject import OWN, OpenClaim, Piece, Pool, Seen
from arcs.settling.unused import Source, file_of, in_hash_order, pools
from arcs.subruns import sub_run
from backends.lora import adapter_sha256
from evals.items.load import items_sha256, load
from evals.items.records import ShortAnswer
from evals.probing.probes import PRIMARY, PROBES, scores_on
from evals.statistics.rates import Interval
from models.errors import UserError
from models.store import prepare

ARC3, TRANSFER = "arc3", "transfer"
FRESH = "fresh"
GENERATED = 4000
"""Generated questions that are offered: as many as exclude an effect where one answer in ten is
right."""
NEAR = 1e-3
"""The run's own AUC comes out again within so much; one pair of 50 right and 100 wrong answers is a
fifth of it."""
KNOWN_KIND = "of a kind of question that the training set has, so not fresh"
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
    kind: str = ARC3
    kinds: str = (
        "short answers (evals/items/data/SHORT_ANSWERS_CARD.md) of kinds that training has not, or "
        f"{RECALL}, generated"
    )

    @classmethod
    def of(cls, run: Path, manifest: Mapping[str, Any], gates: Gates) -> Probing:
        """Read a finished run. Raises UserError for what cannot be gone on with."""
        metrics = StoredRun(run).metrics
        if metrics is None:
            raise UserError(f"{run}: it is not finished; finish it with --run first")
        if "claims" not in metrics:
            raise UserError(f"{run}: these are further answers of a run, settled with it")
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
        if self.config.kind == JUDGE:
            raise UserError(
                f"{self.run}: its labels are a judge's ({self.config.labels}), which settle does "
                "not ask again (of an API it would cost money); make a new run with a larger "
                "--limit"
            )
        if self.config.kind != EXACT_MATCH:
            raise UserError(
                f"{self.run}: its labels are by {self.config.kind}; settle goes on with labels by "
                "exact match, so make a new run with a larger --limit"
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
        return {"": len(self._fresh(self._first).y)}

    @property
    def seconds_per_item(self) -> float | None:
        """Answering, and reading features."""
        phases = (StoredRun(self.run).timing or {}).get("phases") or {}
        asked = sum(self.metrics["sets"][name]["answers"]["n"] for name in SETS)
        known = [phases[name]["seconds"] for name in ("answer", "features") if name in phases]
        return float(sum(known)) / asked if len(known) == 2 else None

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        """See the protocol."""
        self._require_same_items()
        adapters = [] if self.config.adapter is None else [self.config.adapter]
        more = [self._source(name) for name in map(self._named, data)]
        return pools(self._own_source, self._used, more, adapters, say.say)

    def require_same_edits(self) -> None:
        """See the protocol."""
        stated = self.manifest["model"]
        base = (stated.get("base") or stated)["fingerprint"]
        if self._directory.fingerprint != base:
            raise UserError(f"{self.config.model}: its weights are no longer those of {self.run}")
        adapter = self.config.adapter
        if adapter is not None and adapter_sha256(adapter) != stated["adapter"]["sha256"]:
            raise UserError(f"{adapter}: it is no longer the adapter of {self.run}")

    def values(self, claim: OpenClaim, piece: Piece) -> list[tuple[float, bool]]:
        """Of each answer, the probe's score and whether it is right."""
        del claim
        return self._scored(piece)

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """By the rules of the run, over all pieces, its controls included."""
        del claim
        fresh = pooled([self._fresh(piece) for piece in pieces])
        both = Study(self._train, fresh, self.config.sizes, self.config.seed, gates.level)
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
        every = self._items(pool.source)
        if items_sha256(every) != pool.sha256:
            raise UserError(f"{pool.source}: it is no longer the set that was planned with")
        by_id = {one.key: one for one in every}
        engine = str(self.manifest["backend"]).split()[0]
        config = self.config.model_copy(update={"backend": engine, "difficulty": None})
        more = More(
            pool.title, tuple(by_id[one] for one in ids),
            self.manifest["model"]["verification"], self._check,
        )  # fmt: skip
        with sub_run(path, ARC3, config.model_dump(mode="json")) as own:
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
    def _sides(self) -> dict[Path, Side]:
        return {}

    @cached_property
    def _scores(self) -> dict[Path, list[tuple[float, bool]]]:
        return {}

    @cached_property
    def _train(self) -> Side:
        return _h_last(side_of(FinishedRun(self.run).train(), RIGHT))

    @cached_property
    def _definition(self) -> Mapping[str, Any]:
        return features.read(features.path_of(self.run, FRESH)).definition

    def _fresh(self, piece: Piece) -> Side:
        if piece.path not in self._sides:
            self._sides[piece.path] = self._read(piece)
        return self._sides[piece.path]

    def _read(self, piece: Piece) -> Side:
        if piece.first:
            return _h_last(side_of(FinishedRun(self.run).fresh(), RIGHT))
        rows = features.read(features.path_of(piece.path, FRESH))
        self._require_same_rows(rows.definition)
        if not rows.item_ids:
            nothing = self._fresh(self._first).where(np.zeros(self.first_counts[""], np.bool_))
            return replace(nothing, without_label=0, without_features=len(rows.missing))
        return _h_last(side_of(FinishedRun(piece.path, sets=(FRESH,)).fresh_alone(), RIGHT))

    def _scored(self, piece: Piece) -> list[tuple[float, bool]]:
        if piece.path not in self._scores:
            side, train = self._fresh(piece), self._train
            scores: Sequence[float] = ()
            if len(side.y):
                scores = scores_on(PROBES[PRIMARY](), train.x[H_LAST], train.y, side.x[H_LAST])
            made = [(float(s), bool(right)) for s, right in zip(scores, side.y, strict=True)]
            if piece.first:
                self._require_same_auc(made)
            self._scores[piece.path] = made
        return self._scores[piece.path]

    def _require_same_auc(self, values: Sequence[tuple[float, bool]]) -> None:
        """Raise UserError where the run's own answers do not give its own number."""
        own = _open(self.metrics["claims"][TRANSFER])
        now = own.statistic.summary(values)
        stated = own.stated["delta"]
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

    def _named(self, name: str) -> str:
        if name != RECALL:
            return str(file_of(name))
        if self.config.asked == RECALL:
            raise UserError(f"--data {RECALL}: that is the run's own set, of which unused "
                            "questions are taken anyway; leave it out")  # fmt: skip
        return RECALL

    def _items(self, source: str) -> tuple[ShortAnswer, ...]:
        """A whole set; of the run's own, training questions first."""
        if source == OWN:
            both = short_answers(self.config.asked, GENERATED)
            return tuple(one for name in SETS for one in both[name])
        if source == RECALL:
            return tuple(short_answers(RECALL, GENERATED)[FRESH])
        return load(Path(source), ShortAnswer)

    @cached_property
    def _own_source(self) -> Source:
        """In the order in which a larger limit takes them; training questions are never fresh."""
        items, used = self._items(OWN), set(self._used)
        fresh = {one.key for one in short_answers(self.config.asked, GENERATED)[FRESH]}
        generated = self.config.asked == RECALL  # their unused training questions are no loss
        kept = [one for one in items if one.key in used or one.key in fresh or not generated]
        barred = {one.key: KNOWN_KIND for one in kept if one.key not in fresh | used}
        asked = {one.key: wordings_of(one.prompt, self.config.asked) for one in kept}
        return Source(OWN, dataset_of(self.config.asked), items_sha256(list(items)), asked,
                      dict.fromkeys(asked, ""), barred)  # fmt: skip

    def _source(self, source: str) -> Source:
        items = self._items(source)
        by_id = {one.key: one for one in items}
        order = list(by_id) if source == RECALL else in_hash_order(list(by_id))
        training = set(self.manifest["questions"]["train"]["groups"])
        barred = {item: KNOWN_KIND for item in order if group_of(by_id[item]) in training}
        asked = {item: wordings_of(by_id[item].prompt, SHORT_ANSWERS) for item in order}
        title = source if source == RECALL else Path(source).name
        return Source(source, title, items_sha256(list(items)), asked,
                      dict.fromkeys(order, ""), barred)  # fmt: skip

    # The instrument -----------------------------------------------------------------------------

    def _check(self, definition: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Raise UserError where new items would be answered or read by another instrument."""
        for key in SAME:
            if manifest.get(key) != self.manifest.get(key):
                raise UserError(f"{self.run}: {key} was another when it was run, so its items and "
                                "new ones cannot be pooled; run arc3 anew")  # fmt: skip
        answered = self.manifest["engine"]
        other = differing(answered, definition["engine"])
        if other is not None:
            raise UserError(
                f"{self.run}: it was answered with {other} {answered.get(other)}, and new items "
                f"would be with {definition['engine'].get(other)}; settle where it was run, or run "
                "arc3 anew"
            )
        self._require_same_rows(definition)

    def _require_same_rows(self, definition: Mapping[str, Any]) -> None:
        """Raise UserError where features of new answers are not what the run's are."""
        own, new = ({key: value for key, value in one.items() if key != "engine"}
                    for one in (self._definition, definition))  # fmt: skip
        features.require_one_definition(own, new)
        other = differing(self._definition["engine"], definition["engine"])
        if other is not None:
            raise UserError(
                f"{self.run}: its features were read with {other} "
                f"{self._definition['engine'].get(other)}, and those of new answers with "
                f"{definition['engine'].get(other)}; settle where it was run, or run arc3 anew"
            )


def pooled(sides: Sequence[Side]) -> Side:
    """The answers of all pieces, their ids told apart by the piece they are of."""

    def join(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in sides])

    answers = [one.answers for one in sides]
    return Side(
        item_ids=tuple(f"{place}:{item}" for place, one in enumerate(sides)
                       for item in one.item_ids),
        y=join("y"), low=join("low"), high=join("high"), finished=join("finished"),
        truncated=join("truncated"),
        groups=tuple(group for one in sides for group in one.groups),
        x={H_LAST: np.concatenate([one.x[H_LAST] for one in sides])},
        answers=replace(
            answers[0],
            prompts=tuple(text for one in answers for text in one.prompts),
            responses=tuple(text for one in answers for text in one.responses),
            topics=tuple(topic for one in answers for topic in one.topics),
            prompt_tokens=np.concatenate([one.prompt_tokens for one in answers]),
            ids=tuple(ids for one in answers for ids in one.ids),
            scalars=np.concatenate([one.scalars for one in answers]),
        ),
        asserted=tuple(said for one in sides for said in one.asserted),
        without_label=sum(one.without_label for one in sides),
        without_features=sum(one.without_features for one in sides),
    )  # fmt: skip


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


def _h_last(side: Side) -> Side:
    """Without the layers that the claim does not read."""
    return replace(side, x={H_LAST: side.x[H_LAST]})


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
    why = why_not(claim)
    if why is not None:
        return why
    named = f"{claim['verdict']} ({', '.join(claim['reasons']).replace('_', ' ')})"
    return f"{named}: it stays as it is, since settle goes on with {TRANSFER} alone"
