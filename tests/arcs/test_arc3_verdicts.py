"""What an Arc 3 verdict has to outlive: kinds of question, cut answers, the run's own controls."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arcs.arc3 import analysis, claims, pipeline, probing
from arcs.arc3 import sidecar as sidecars
from arcs.arc3.config import parse
from arcs.arc3.probing import Study
from arcs.arc3.report import _by_kind, told
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import Direction, Estimate, JudgedClaim, judge_claim
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from evals.probing.gate import OperatingPoint
from evals.statistics.rates import Interval
from tests.support.arc3_bench import SIGNAL, side, study

GATES = load_gates()
KINDS = (ReasonCode.BETWEEN_KINDS,)


# -- kinds ----------------------------------------------------------------------------------------


def of_kinds(kinds: int) -> Study:
    """Fresh answers whose kind alone decides both what is right and what the features say."""
    train, fresh = side(0, signal=SIGNAL), side(1, n=120, rate=0.5)
    named = np.arange(120) % kinds
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 24)).astype(np.float32)
    x[:, 3] += 2 * SIGNAL * (named % 2)
    y = rng.random(120) < np.where(named % 2, 0.8, 0.2)
    return study(
        train,
        replace(
            fresh, x={"h_last": x}, y=y, low=y, high=y, groups=tuple(f"kind{k}" for k in named)
        ),
    )


def judged(one: Study) -> list[JudgedClaim]:
    return [
        claims.transfer(one, GATES, no_signal=False, faults=()),
        analysis._beyond(one, GATES),
        analysis._separates(one, GATES),
    ]


def test_kinds_told_apart_support_nothing_where_they_are_few() -> None:
    few = judged(of_kinds(4))
    assert [(one.verdict, one.reasons) for one in few] == [(Verdict.INCONCLUSIVE, KINDS)] * 3
    assert few[0].statistic_verdict is Verdict.SUPPORTED  # of items alone
    said = told(few[0].to_json(), 4)
    assert "tells kinds of question apart, and with 4 kinds that is not enough" in said
    # many kinds show it; one kind leaves nothing to tell apart, and is said
    first, _, gate = judged(of_kinds(12))
    assert first.verdict is gate.verdict is Verdict.SUPPORTED
    one = of_kinds(4)
    single = replace(one, fresh=replace(one.fresh, groups=("humaneval",) * 120))
    assert {claim.verdict for claim in judged(single)} == {Verdict.SUPPORTED}
    found = claims.kinds_of(single, probing.primary_on_fresh(single)).to_json()
    assert "not tested" in _by_kind({"kinds": {"fresh": found, "gate": None}})[0]


def test_a_baseline_is_beaten_by_kind_as_well() -> None:
    interval = {"low": 0.1, "high": 0.3, "level": 0.95}
    by = {"kinds": 8, "within": 0.1, "within_p": 0.024, "between": None, "between_p": None,
          "permutations": 999}  # fmt: skip
    rows: dict[str, dict[str, Any]] = {
        "a": {"difference": 0.2, "interval": interval, "p_value": 0.001},
        "b": {"difference": 0.2, "interval": interval, "p_value": 0.001, "by_kind": by},
    }
    for p, kinds, reasons in (
        (0.024, 8, (ReasonCode.EFFECT_SHOWN,)),
        (0.026, 8, KINDS),  # half of alpha for each part
        (None, 1, (ReasonCode.EFFECT_SHOWN,)),  # not tested
    ):
        rows["b"]["by_kind"] = {**by, "within_p": p, "kinds": kinds}
        claim = claims.beyond_baselines(rows, 100, GATES, faults=(), doubts=())
        assert claim.reasons == reasons
    rows["b"]["by_kind"] = {**by, "within": -0.1}  # the worse one
    assert claims.beyond_baselines(rows, 100, GATES, faults=(), doubts=()).reasons == KINDS


# -- cut answers ----------------------------------------------------------------------------------


def scored(scores: np.ndarray, right: np.ndarray, hidden: np.ndarray) -> tuple[Study, Any]:
    """Fresh answers with these scores, some of them open, and the claim of their AUC alone."""
    n = len(right)
    fresh = replace(side(1, n=n), y=right, low=right & ~hidden, high=right | hidden)
    fresh = replace(fresh, groups=("one",) * n)
    by_id = dict(zip(fresh.item_ids, scores, strict=True))

    def of(one: Study) -> np.ndarray:
        return np.array([by_id[item] for item in one.fresh.item_ids])

    return study(side(0), fresh), of


@pytest.mark.parametrize(
    ("signal", "hidden", "verdict", "moves"),
    [
        (0.0, "none", Verdict.REFUTED, False),
        (0.0, "few", Verdict.REFUTED, False),
        (0.0, "high", Verdict.REFUTED, True),
        (0.0, "some", Verdict.REFUTED, True),  # which leaves it open
        (1.0, "few", Verdict.SUPPORTED, False),
        (0.2, "high", Verdict.SUPPORTED, True),
    ],
)
def test_what_is_shown_and_what_is_excluded_outlive_the_readings(
    monkeypatch: pytest.MonkeyPatch, signal: float, hidden: str, verdict: Verdict, moves: bool
) -> None:
    rng = np.random.default_rng(0)
    right = np.arange(2000) % 2 == 0
    scores = rng.permuted(np.arange(2000.0)) / 2000
    if not signal:  # every second of the order, so that the AUC is 0.5
        scores = np.arange(2000.0) // 2 / 1000
    scores = scores + signal * right
    where = {
        "none": np.zeros(2000, bool), "few": rng.random(2000) < 0.01,
        "high": (scores > 0.7) & (rng.random(2000) < 0.8),
        "some": (scores > 0.7) & (rng.random(2000) < 0.2),
    }  # fmt: skip
    one, of = scored(scores, right, where[hidden])

    def claim(each: Study, _: Any) -> JudgedClaim:
        estimate = claims.auc_estimate(of(each), each.fresh.y, 0.95)
        return judge_claim("", estimate, 0.05, direction=Direction.MORE)

    assert claim(one, GATES).verdict is verdict
    assert analysis._hangs_on_cut_answers(verdict, one, GATES, claim) is moves
    # what is neither hangs on nothing
    assert not analysis._hangs_on_cut_answers(Verdict.INCONCLUSIVE, one, GATES, claim)
    monkeypatch.setattr(claims, "_scores", of)
    first = claims.transfer(one, GATES, no_signal=False, faults=())
    assert first.verdict is (Verdict.INVALID if moves else verdict)
    assert (first.reasons == (ReasonCode.TRUNCATED,)) is moves


# -- controls -------------------------------------------------------------------------------------


def test_a_probe_that_misses_what_is_planted_refutes_nothing() -> None:
    point = OperatingPoint(0.5, 60, 100, 80, 100, 0.95)
    claim = claims.separates(point, GATES, faults=(), doubts=())
    assert claim.verdict is Verdict.REFUTED
    assert claims.held_to_controls(claim, planted=Verdict.SUPPORTED) is claim
    blind = claims.held_to_controls(claim, planted=Verdict.INCONCLUSIVE)
    assert blind.verdict is Verdict.INCONCLUSIVE and blind.reasons == (ReasonCode.INSENSITIVE,)


def test_the_controls_decide_in_the_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that cost time and decide nothing here are left out."""
    both = study(side(0, signal=SIGNAL), side(1, signal=SIGNAL))
    for name in ("all_probes", "nuisance", "selectivity"):
        monkeypatch.setattr(probing, name, lambda *_: None)
    found = {"planted": {"verdict": "SUPPORTED"}, "shuffled": {"verdict": "SUPPORTED"}}
    monkeypatch.setattr(analysis, "_controls", lambda *_: found)
    told = analysis.analyse(both, GATES, (), Reporter(quiet=True))["claims"]
    for claim in told.values():
        assert claim["verdict"] == "INCONCLUSIVE" and claim["reasons"] == ["placebo_shown"]
    excluded = Estimate("", 0.0, Interval(-0.01, 0.01, 0.95), "", 9)
    refuted = judge_claim("", excluded, 0.05)
    monkeypatch.setattr(claims, "beyond_baselines", lambda *_, **__: refuted)
    found |= {"planted": {"verdict": "INCONCLUSIVE"}, "shuffled": {"verdict": "INCONCLUSIVE"}}
    told = analysis.analyse(both, GATES, (), Reporter(quiet=True))["claims"]
    assert told["beyond_baselines"]["reasons"] == ["insensitive"]
    assert told["transfer"]["verdict"] == "SUPPORTED"


# -- the sidecar of these labels ------------------------------------------------------------------


def test_a_sidecar_does_not_outlive_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = study(side(0), side(1))
    tries: list[int] = []
    facts: Any = SimpleNamespace(save=lambda folder: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(sidecars, "fit", lambda *_: facts)

    def tried(*_: Any) -> dict[str, Any]:
        tries.append(1)
        return {"n": len(tries), "milliseconds": {}}

    monkeypatch.setattr(sidecars, "try_out", tried)
    prepared: Any = SimpleNamespace(
        asked=(), longest=9, directory=None, encoder=None, fingerprint="0",
        opened=lambda *_: nullcontext(),
    )  # fmt: skip

    def ended(of: Study, gate: Any) -> Any:
        return pipeline._end_to_end(
            parse({}), run, prepared, of, {"gate": gate}, Reporter(quiet=True)
        )

    chosen = {"chosen": {"threshold": 0.5}}
    with RunDirectory.create(tmp_path / "run", {}) as run:
        assert ended(one, chosen) == ended(one, chosen) == {"n": 1}
        assert ended(replace(one, fresh=one.fresh.relabelled(~one.fresh.y)), chosen) == {"n": 2}
        assert (run.path / sidecars.FOLDER).is_dir() and (run.path / sidecars.TRIED).is_file()
        assert ended(one, None) is None
        assert not (run.path / sidecars.FOLDER).exists()
        assert not (run.path / sidecars.TRIED).exists()
