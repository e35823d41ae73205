"""The paper's claims, judged from its published files (skipped where these are not at hand)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcs.claims import ReasonCode, Verdict
from arcs.estimates import Estimate, judge_claim
from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.claims import PaperClaim, Stands, paper_claims
from arcs.reproduction.claims.estimates import change_between_budgets
from arcs.reproduction.claims.table import Says
from arcs.reproduction.groups import facts_of
from evals.statistics.rates import Interval


@pytest.fixture(scope="module")
def claims(paper_artifacts: Path) -> dict[str, PaperClaim]:
    found = paper_claims(facts_of(Artifacts(paper_artifacts)))
    assert len({claim.key for claim in found}) == len(found) >= 30
    return {claim.key: claim for claim in found}


# Worked out by hand from PAPER.md: verdict, first reason, what the statistic alone would say.
EXPECTED = {
    "arc1.gain_at_512": ("INVALID", "truncation_artifact", "SUPPORTED"),
    "arc1.loss_at_1024": ("INCONCLUSIVE", "not_published", "INCONCLUSIVE"),
    "arc1.loss_of_1.7b": ("INCONCLUSIVE", "not_published", "SUPPORTED"),
    "arc1.mcas_gain": ("INVALID", "judge_not_valid", "SUPPORTED"),
    "arc1.self_verification_rate": ("INCONCLUSIVE", "ceiling", "REFUTED"),
    "arc1.chef_coverage": ("INVALID", "truncated", None),
    "arc2.heads_of_gemma": ("INCONCLUSIVE", "selected_without_null", None),
    "arc2.direction_of_qwen3.5": ("INVALID", "in_sample", None),
    "arc3.asymmetry_of_gemma": ("INVALID", "truncated", "INCONCLUSIVE"),
    "arc3.step1_signal": ("INVALID", "mixed_runs", "SUPPORTED"),
    "arc3.step2_fresh": ("INVALID", "truncated", "INCONCLUSIVE"),
    "arc3.step5_second_model": ("INVALID", "mixed_instruments", "INCONCLUSIVE"),
    "arc3.no_uncertain_prompts": ("INVALID", "constant_class", None),
    "arc3.degenerate_gate": ("SUPPORTED", "effect_shown", "SUPPORTED"),
    "extras.u_curve": ("INVALID", "misaligned", None),
}


@pytest.mark.parametrize("key", EXPECTED)
def test_a_claim_gets_the_verdict_that_its_published_data_allow(claims, key: str) -> None:
    judged = claims[key].judged
    alone = judged.statistic_verdict and judged.statistic_verdict.value
    assert (judged.verdict.value, judged.reasons[0].value, alone) == EXPECTED[key]


def test_every_claim_says_why_and_what_is_missing_and_is_json(claims) -> None:
    for claim in claims.values():
        assert len(claim.why) > 40 and claim.missing and claim.source
        assert not claim.why.endswith(".") and "nan" not in claim.why
        json.dumps(claim.to_json(), allow_nan=False)


def test_numbers_in_the_reasons_are_those_of_the_files(claims) -> None:
    assert "35 gained, 6 lost" in claims["arc1.gain_at_512"].why
    assert "94 of 100" in claims["arc3.asymmetry_of_gemma"].why
    assert "163 of 193" in claims["arc3.step2_fresh"].why
    assert "13 of 31 to 54 of 189" in claims["arc3.rate_drop_of_gemma"].why
    assert "14 of 31 to 9 of 189" in claims["arc3.capability_cliff"].why
    assert "134 of 184" in claims["arc3.degenerate_gate"].why
    fresh = claims["arc3.step5_second_model"].judged.estimate
    assert fresh is not None and fresh.value == pytest.approx(0.518719806763285, abs=1e-9)
    assert 0.5 in fresh.interval and 0.63 in fresh.interval


def test_what_the_paper_withdrew_stands_as_withdrawn(claims) -> None:
    assert claims["arc1.gain_at_512"].stands is Stands.YES
    assert claims["arc3.step1_signal"].stands is Stands.INVALID
    assert claims["arc3.degenerate_gate"].stands is Stands.NO


SHOWN = Estimate("x", 0.2, Interval(0.1, 0.3, 0.95), "by hand", 100)
NONE = Estimate("x", 0.0, Interval(-0.01, 0.01, 0.95), "by hand", 100)


@pytest.mark.parametrize(
    ("estimate", "says", "stands"),
    [
        (SHOWN, Says.YES, Stands.YES),
        (SHOWN, Says.NO, Stands.NO),
        (NONE, Says.YES, Stands.NO),
        (NONE, Says.NO, Stands.YES),
        (NONE, Says.WITHDRAWN, Stands.YES),
        (SHOWN, Says.WITHDRAWN, Stands.NO),
    ],
)
def test_the_papers_conclusion_is_compared_with_the_verdict(estimate, says, stands) -> None:
    claim = PaperClaim("k", "s", says, judge_claim("x", estimate, 0.05), "w", "m")
    assert claim.stands is stands


@pytest.mark.parametrize("says", list(Says))
def test_an_undecided_claim_leaves_the_papers_conclusion_open(says) -> None:
    judged = judge_claim("x", SHOWN, 0.05, doubts=[ReasonCode.NOT_PUBLISHED])
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert PaperClaim("k", "s", says, judged, "w", "m").stands is Stands.OPEN


def test_a_change_between_budgets_is_found_and_none_is_not() -> None:
    change, p = change_between_budgets((21, 50), (59, 46), 164)
    assert change == pytest.approx(29 / 164 + 13 / 164) and p < 1e-3
    same, p_same = change_between_budgets((21, 50), (21, 50), 164)
    assert same == 0.0 and p_same == 1.0


def test_the_figures_are_drawn_from_the_published_files(paper_artifacts: Path, tmp_path) -> None:
    from arcs.reproduction.figures import draw_all

    paths = draw_all(Artifacts(paper_artifacts), tmp_path)
    assert len(paths) == 10 and all(path.stat().st_size > 5000 for path in paths)
    nulls = next(path for path in paths if path.name == "null-distributions.svg").read_text()
    assert "n = 193, 9 positive" in nulls and "largest of 280 heads, Gemma" in nulls
