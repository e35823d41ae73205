"""Overlap of two collections, against the definitions computed with plain Python sets."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.overlap import (
    duplicates_inside,
    exact_pairs,
    near_duplicates,
    normalised,
    shared_ngrams,
)


def shingles(text: str) -> set[str]:
    plain = normalised(text)
    return {plain[i : i + 6] for i in range(len(plain) - 5)}


def jaccard(a: str, b: str) -> float:
    first, second = shingles(a), shingles(b)
    return len(first & second) / len(first | second) if first | second else 0.0


def random_texts(rng: np.random.Generator, n: int, words: int, vocabulary: int) -> list[str]:
    drawn = rng.integers(vocabulary, size=(n, words))
    return [" ".join(f"w{word:04d}x" for word in row) for row in drawn]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab cd", max_size=30), min_size=1, max_size=6), st.data())
def test_near_duplicates_are_those_of_the_definition(first: list[str], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.sampled_from([*first, "abcabcabc", "dd aa bb cc"]), min_size=1))
    found = {(p.first, p.second): p.similarity for p in near_duplicates(first, second)}
    expected = {
        (i, j): jaccard(a, b)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if jaccard(a, b) > 0.35 + 1e-6
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-6)  # counts are float32


def test_case_and_spaces_make_no_difference_but_words_do() -> None:
    assert [p.second for p in exact_pairs(["How  Do\nI boil?"], ["x", "how do i boil?"])] == [1]
    assert exact_pairs(["how do i boil?"], ["how do i broil?"]) == []
    assert exact_pairs([""], [" "]) == []


def test_a_pair_inside_a_collection_is_reported_once_and_never_with_itself() -> None:
    texts = ["why does my sauce split?", "how to poach an egg", "why does my sauce split so?"]
    assert [(p.first, p.second) for p in duplicates_inside(texts)] == [(0, 2)]


def test_shared_ngrams_need_eight_words_in_a_row() -> None:
    eight = "one two three four five six seven eight"
    assert shared_ngrams([f"start {eight}"], [f"{eight} end"]) == {0: eight}
    assert shared_ngrams(["one two three four five six seven"], [eight]) == {}


def test_boilerplate_in_front_of_every_prompt_is_no_overlap() -> None:
    rng = np.random.default_rng(0)
    head = "please answer the following question in one short paragraph of plain words: "
    first, second = ([head + text for text in random_texts(rng, 30, 8, 10_000)] for _ in range(2))
    assert near_duplicates(first, second)
    assert near_duplicates(first, second, drop_common=True) == []
    assert shared_ngrams(first, second) == {}


def test_a_copied_prompt_is_found_behind_boilerplate() -> None:
    rng = np.random.default_rng(1)
    head = "please answer the following question in one short paragraph of plain words: "
    first, second = ([head + text for text in random_texts(rng, 30, 12, 10_000)] for _ in range(2))
    second[7] = first[3]
    assert [(p.first, p.second) for p in near_duplicates(first, second, drop_common=True)] == [
        (3, 7)
    ]
    assert set(shared_ngrams(first, second)) == {3}


def test_two_thousand_by_two_thousand_prompts_take_seconds() -> None:
    rng = np.random.default_rng(2)
    first, second = (random_texts(rng, 2000, 40, 3000) for _ in range(2))
    second[1234] = first[987] + " and more"
    start = time.perf_counter()
    found = near_duplicates(first, second, drop_common=True)
    assert [(p.first, p.second) for p in found] == [(987, 1234)]
    assert time.perf_counter() - start < 20  # about 2 s alone; the machine may be shared


def test_empty_collections_and_impossible_thresholds() -> None:
    assert near_duplicates([], ["a"]) == [] and near_duplicates(["a"], []) == []
    assert near_duplicates(["", "ab"], ["", "ab"]) == []  # shorter than a shingle
    with pytest.raises(ValueError):
        near_duplicates(["a"], ["a"], threshold=1.0)
