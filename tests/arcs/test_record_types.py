"""Failure traces, boundary cases and the two controls that ship; and the schema they share."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from arcs.training_data import (
    DISPOSITIONS,
    RECORD_TYPES,
    Record,
    built_in_paths,
    built_in_preference_paths,
    load,
    load_preferences,
    paired_placebo,
    shipped_or_own,
)
from arcs.training_data.quality import distinct_ngram_share, distinct_openers, shared_ngrams
from evals.judges.lexicon import hedges
from models.errors import UserError

WHY_NOT_DEFINITE = {
    "disputed", "missing_context", "not_public", "beyond_evidence", "changes", "taste",
    "needs_professional", "future",
}  # fmt: skip
GOOD = {"id": "a", "prompt": "What is a roux?", "response": "Butter and flour, cooked."}
TRACE = {**GOOD, "type": "failure_trace", "attempt": "Butter.", "critique": "The flour is missing."}


@pytest.fixture(scope="module")
def records() -> dict[str, tuple[Record, ...]]:
    return {name: load(built_in_paths(name)) for name in RECORD_TYPES}


def test_sizes_are_as_promised(records):
    sizes = {name: len(found) for name, found in records.items()}
    pairs = len(load_preferences(built_in_preference_paths()))
    four_types = (sizes["gold"], sizes["failure_trace"], sizes["boundary"], pairs)
    assert sum(four_types) >= 600 and pairs >= 120
    assert sizes["failure_trace"] >= 80 and sizes["boundary"] >= 60
    assert sizes["placebo"] >= 120 and sizes["planted"] >= 80
    for name, found in records.items():
        assert {one.type for one in found} == {name}
        counts = Counter((one.kind, one.split) for one in found)
        assert set(counts) == set(itertools.product(("code", "cooking"), ("train", "held_out")))
        share = sum(one.kind == "code" for one in found) / len(found)
        assert 0.45 <= share <= 0.56 and min(counts.values()) >= 4
    ids = [one.id for found in records.values() for one in found]
    assert len(set(ids)) == len(ids)


def test_traces_cover_the_dispositions_and_boundaries_their_reasons(records):
    primary = Counter(one.dispositions[0] for one in records["failure_trace"])
    assert set(primary) == set(DISPOSITIONS) and min(primary.values()) >= 8
    reasons = Counter((one.category, one.kind) for one in records["boundary"])
    assert {why for why, _ in reasons} == WHY_NOT_DEFINITE and min(reasons.values()) >= 3
    for name in ("placebo", "planted"):
        assert not any(one.dispositions for one in records[name])


def test_no_template_is_visible(records):
    trained = [one for name in ("gold", "failure_trace", "boundary") for one in records[name]]
    assert distinct_openers([one.response for one in trained]) >= 0.99
    for name in RECORD_TYPES:
        responses = [one.response for one in records[name]]
        assert distinct_openers(responses) >= 0.97
        assert distinct_ngram_share(responses) >= 0.95
        assert distinct_openers([one.prompt for one in records[name]]) >= 0.97
    for part in ("attempt", "critique"):
        texts = [getattr(one, part) for one in records["failure_trace"]]
        assert distinct_openers(texts) >= 0.97


def test_no_prompt_is_nearly_another_one(records):
    from evals.overlap import exact_pairs, near_duplicates

    prompts = [one.prompt for name in RECORD_TYPES[:4] for one in records[name]]
    prompts += [pair.prompt for pair in load_preferences(built_in_preference_paths())]
    twins = [pair for pair in near_duplicates(prompts, prompts) if pair.first < pair.second]
    assert twins == []
    again = near_duplicates([prompts[5] + " Thanks!"], prompts)
    assert [pair.second for pair in again] == [5]  # the check can fail
    assert len(exact_pairs(prompts, prompts)) == len(prompts)


def test_no_prompt_is_shared_with_the_papers_evaluation(records, paper_artifacts):
    theirs = [
        item["prompt"]
        for name in ("judge_v4_step16.json", "judge_v4_fresh.json")
        for item in json.loads((paper_artifacts / name).read_text())["items"]
    ]
    mcas = json.loads((paper_artifacts / "phase0_audit" / "mcas_details.json").read_text())
    theirs += [prompt["prompt"] for prompt in mcas["prompts"]]
    ours = [one.prompt for name in RECORD_TYPES[1:] for one in records[name]]
    assert len(theirs) == 793 and shared_ngrams(ours, theirs) == []


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run_check(text: str, check: str) -> None:
    names: dict[str, object] = {}
    for source in (*python_blocks(text), check):
        exec(compile(source, "record", "exec"), names)


def test_code_runs_holds_its_check_and_the_attempt_does_not(records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an attempt may delete files of the current folder
    monkeypatch.setenv("PORT", "")  # a check sets it; put back at the end
    checked = 0
    for one in (*records["failure_trace"], *records["placebo"], *records["planted"]):
        has_code = bool(python_blocks(one.response))
        assert has_code == (one.check is not None), one.id
        if one.check is None:
            continue
        run_check(one.response, one.check)
        checked += 1
        if one.attempt is not None:
            assert python_blocks(one.attempt), one.id
            with pytest.raises(Exception):  # noqa: B017  # any way to fail will do
                run_check(one.attempt, one.check)
    assert checked >= 55


def sentences(text: str) -> list[str]:
    prose = re.sub(r"```.*?```|`[^`]*`", "X", text, flags=re.DOTALL)
    return [one for one in re.split(r"(?<=[.!?:])\s+", prose.lower()) if len(one) > 12]


def test_the_planted_set_always_hedges_and_the_placebo_does_not(records):
    for one in records["planted"]:
        assert sum(hedges(line) > 0 for line in sentences(one.response)) >= 2, one.id
    share = {
        name: sum(hedges(line) > 0 for one in records[name] for line in sentences(one.response))
        / sum(len(sentences(one.response)) for one in records[name])
        for name in ("planted", "placebo")
    }
    assert share["planted"] > 0.85 and share["placebo"] < 0.03


def test_the_placebo_is_paired_with_the_planted_set(records):
    partners = paired_placebo(records["planted"], records["placebo"])
    assert [one.prompt for one in partners] == [one.prompt for one in records["planted"]]
    planted, placebo = (
        sum(len(one.response.split()) for one in rows) for rows in (records["planted"], partners)
    )
    assert 0.98 < placebo / planted < 1.02
    assert all(a.check == b.check for a, b in zip(records["planted"], partners, strict=True))
    with pytest.raises(UserError, match=f"{records['planted'][0].id}.*no placebo record"):
        paired_placebo(records["planted"], partners[1:])


def test_a_set_that_ships_is_found_by_its_name(tmp_path, monkeypatch):
    from arcs.arc1.config import absolute_paths

    monkeypatch.chdir(tmp_path)
    (shipped, _) = built_in_paths("planted")
    assert shipped_or_own("always_hedge_code") == shipped
    assert absolute_paths({"data": ["always_hedge_code"]})["data"] == (shipped,)
    assert shipped_or_own("x/always_hedge_code") == Path("x/always_hedge_code")
    Path("always_hedge_code").write_text("mine")
    assert shipped_or_own("always_hedge_code") == Path("always_hedge_code")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**TRACE, "attempt": None}, "'attempt'"),
        ({key: value for key, value in TRACE.items() if key != "critique"}, "'critique'"),
        ({**TRACE, "attempt": TRACE["response"] + "\n"}, "are the same"),
        ({**GOOD, "critique": "x"}, "'critique' belongs to"),
        ({**GOOD, "type": "boundary"}, "'category'"),
        ({**GOOD, "type": "golden"}, "type"),
        ({**GOOD, "difficulty": "brutal"}, "difficulty"),
        ({**GOOD, "provenance": "me"}, "provenance"),
    ],
)
def test_parts_that_do_not_fit_the_type_are_named(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=message) as error:
        load([path])
    assert "mine.jsonl, line 1" in str(error.value) and "\n" not in str(error.value)


def test_a_generated_trace_and_a_plain_row_are_read(tmp_path):
    path = tmp_path / "mine.jsonl"
    made = {**TRACE, "id": "b", "difficulty": "easy", "provenance": {"stages": ["eager", 1]}}
    path.write_text("\n".join(map(json.dumps, (GOOD, made))))
    plain, trace = load([path])
    assert plain.type is None and trace.provenance == {"stages": ["eager", 1]}
