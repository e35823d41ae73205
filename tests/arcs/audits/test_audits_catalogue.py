from __future__ import annotations

import re
from dataclasses import replace

import pytest

from arcs.audits.catalogue import ALL, run_audits
from arcs.audits.findings import Outcome
from arcs.audits.results import Results
from arcs.runs import canonical_json
from tests.support.audit_probes import (
    clean_experiment,
    degenerate_results,
    paper_gemma,
    paper_rankings,
    paper_smollm,
)
from tests.support.audit_results import SOURCE


def test_every_audit_has_a_name_of_its_own_and_says_what_it_asks_and_needs() -> None:
    names = [audit.name for audit in ALL]
    assert len(set(names)) == len(names)
    for audit in ALL:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", audit.name)
        assert audit.question.endswith("?") and audit.needs and not audit.needs.endswith(".")


def test_only_the_named_audits_run_in_the_order_of_the_catalogue() -> None:
    made = run_audits(clean_experiment(), only=["weak-test", "impossible-auc"])
    assert [audit.name for audit, _ in made] == ["impossible-auc", "weak-test"]
    assert run_audits(clean_experiment(), only=[]) == []
    with pytest.raises(ValueError, match="no such audit: everything"):
        run_audits(clean_experiment(), only=["everything"])


@pytest.mark.parametrize("results", degenerate_results())
def test_no_audit_fails_on_results_without_content_or_finds_where_it_cannot_look(results) -> None:
    made = run_audits(results)
    assert len(made) == len(ALL)
    assert all(outcome.examined or not outcome.findings for _, outcome in made)


def test_no_audit_applies_to_nothing() -> None:
    nothing = Results(SOURCE, "made")
    assert all(outcome == Outcome((), 0) for _, outcome in run_audits(nothing))


BARE = {"threshold-quantisation", "features-encode-truncation", "in-sample-direction"}


def test_the_clean_run_has_something_for_every_audit_to_look_at() -> None:
    idle = {audit.name for audit, outcome in run_audits(clean_experiment()) if not outcome.examined}
    assert idle <= BARE


def paper(folder) -> Results:
    gemma, smollm, heads = (make(folder) for make in (paper_gemma, paper_smollm, paper_rankings))
    return replace(
        gemma,
        sets=gemma.sets + smollm.sets,
        probes=gemma.probes + smollm.probes,
        rankings=heads.rankings,
    )


@pytest.mark.slow
def test_findings_on_the_papers_files_are_json_and_whole_sentences(paper_artifacts) -> None:
    results = paper(paper_artifacts)
    made = run_audits(results)
    findings = [found for _, outcome in made for found in outcome.findings]
    assert findings
    for found in findings:
        canonical_json(found.to_json())
        assert found.message.endswith(".") and found.fix.endswith(".") and found.where


@pytest.mark.parametrize("seed", range(3))
def test_every_audit_is_silent_on_a_clean_run(seed) -> None:
    found = {
        audit.name: outcome.findings
        for audit, outcome in run_audits(clean_experiment(seed))
        if outcome.findings
    }
    assert found == {}
