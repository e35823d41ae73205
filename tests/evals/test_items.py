"""The evaluation items that ship with threearc: sizes, diversity, overlap, and that code runs."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest

from arcs.training_data import built_in_paths, load
from arcs.training_data.quality import distinct_ngram_share, distinct_openers, shared_ngrams
from evals.items.load import SETS, built_in, french_cuisine, items_sha256
from evals.items.load import load as load_items
from evals.items.records import (
    ChefItem,
    McasItem,
    MeterItem,
    RecoveryItem,
    ShortAnswer,
    SmallTask,
)
from evals.items.short_answer import is_right
from evals.overlap import duplicates_inside
from evals.statistics.auc import auc
from models.errors import UserError


def prompts_of(name: str) -> list[str]:
    """What a model is asked in one set."""
    return [_prompt(item) for item in built_in(name, SETS[name])]


def _prompt(item: object) -> str:
    if isinstance(item, MeterItem):
        return item.context[-1].content
    return item.prompt  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("chef_train", 120),
        ("chef_fresh", 200),
        ("mcas", 500),
        ("meter", 350),
        ("recovery", 80),
        ("short_answers", 300),
        ("small_tasks", 200),
    ],
)
def test_sets_are_as_large_as_promised(name: str, count: int) -> None:
    assert len(built_in(name, SETS[name])) >= count


@pytest.mark.parametrize("name", [name for name in SETS if name != "short_answers"])
def test_no_template_is_visible(name: str) -> None:
    prompts = prompts_of(name)
    if name != "small_tasks":  # every one begins with a signature
        assert distinct_openers(prompts) >= 0.95
    assert distinct_ngram_share(prompts) >= 0.93


def test_no_prompt_is_nearly_another_within_or_across_the_sets() -> None:
    prompts = [text for name in SETS if name != "small_tasks" for text in prompts_of(name)]
    assert duplicates_inside(prompts, threshold=0.6) == []


def test_nothing_trained_on_is_evaluated() -> None:
    trained = [record.prompt for record in load(built_in_paths())]
    evaluated = [text for name in SETS for text in prompts_of(name)]
    assert shared_ngrams(trained, evaluated) == []


def test_no_prompt_is_the_papers(paper_artifacts) -> None:
    theirs = [
        item["prompt"]
        for name in ("judge_v4_step16.json", "judge_v4_fresh.json")
        for item in json.loads((paper_artifacts / name).read_text())["items"]
    ]
    mcas = json.loads((paper_artifacts / "phase0_audit" / "mcas_details.json").read_text())
    theirs += [prompt["prompt"] for prompt in mcas["prompts"]]
    ours = [text for name in ("chef_train", "chef_fresh", "mcas") for text in prompts_of(name)]
    assert shared_ngrams(ours, theirs) == []


def test_chef_has_all_classes_and_claims_are_short() -> None:
    items = [*built_in("chef_train", ChefItem), *built_in("chef_fresh", ChefItem)]
    classes = Counter(item.certainty for item in items)
    assert classes["UNCERTAIN"] >= 25 and classes["AMBIGUOUS"] >= 25
    claims = [claim for item in items for claim in item.checklist]
    assert len(claims) == 4 * len(items)
    assert max(len(claim.claim.split()) for claim in claims) <= 18
    for claim in claims:
        assert all(phrase == phrase.casefold() for phrase in claim.accept), claim


def test_an_echoed_question_shows_no_claim() -> None:
    """A phrase that stands in its own prompt would reward repeating the question."""
    for name in ("chef_train", "chef_fresh"):
        for item in built_in(name, ChefItem):
            asked = " ".join(re.findall(r"\w+", item.prompt.casefold()))
            for claim in item.checklist:
                for phrase in claim.accept:
                    words = " ".join(re.findall(r"\w+", phrase))
                    assert f" {words} " not in f" {asked} ", (item.id, phrase)


def test_mcas_is_balanced_and_length_does_not_tell_the_types_apart() -> None:
    items = built_in("mcas", McasItem)
    assert Counter(item.type for item in items) == {"underspecified": 250, "specified": 250}
    domains = Counter(item.domain for item in items)
    assert len(domains) >= 10 and min(domains.values()) >= 40
    labels = np.array([item.type == "specified" for item in items])
    lengths = np.array([len(item.prompt.split()) for item in items], float)
    assert 0.45 < auc(lengths, labels) < 0.55


def test_meter_pairs_are_equal_in_length() -> None:
    items = built_in("meter", MeterItem)
    axes = Counter(item.axis for item in items)
    assert axes["hedging"] >= 150 and min(axes.values()) >= 100
    for item in items:
        words = len(item.positive.split()), len(item.negative.split())
        assert max(words) - min(words) <= 0.15 * max(words), item.id
        assert item.positive != item.negative
    labels = np.repeat([True, False], len(items))
    lengths = [len(item.positive.split()) for item in items]
    lengths += [len(item.negative.split()) for item in items]
    assert 0.45 < auc(np.array(lengths, float), labels) < 0.55


def _defined(code: str) -> dict[str, object]:
    space: dict[str, object] = {}
    exec(compile(code, "<item>", "exec"), space)  # our own code, not a model's
    return space


def test_recovery_references_pass_and_first_answers_fail_where_they_say() -> None:
    for item in built_in("recovery", RecoveryItem):
        good = _defined(item.reference)
        for test in item.tests:
            exec(test, dict(good))
        wrong = _defined(item.first_answer.split("```python\n")[1].split("```")[0])
        for test in item.tests:
            try:
                exec(test, dict(wrong))
            except Exception:
                assert test == item.failing_test, item.id
                break
        else:
            raise AssertionError(f"{item.id}: the first answer passes")


def test_small_tasks_solutions_pass_and_stubs_do_not() -> None:
    items = built_in("small_tasks", SmallTask)
    for item in items:
        check = _defined(item.test)["check"]
        solution = _defined(item.prompt + item.canonical_solution)[item.entry_point]
        check(solution)  # type: ignore[operator]
        for value in (None, 0, 1, "", [], True, False):
            with pytest.raises(Exception):  # noqa: B017 (a wrong answer may fail in any way)
                check(lambda *a, _v=value, **k: _v)  # type: ignore[operator]
    bodies = [re.sub(r"\w+", "x", item.canonical_solution) for item in items]
    assert len({item.prompt for item in items}) == len(bodies)


def test_short_answers_accept_their_own_answers_and_not_others() -> None:
    for item in built_in("short_answers", ShortAnswer):
        ask = {"prompt": item.prompt, "accepted": item.answers, "options": item.options}
        for answer in item.answers:
            assert is_right(f"{answer.capitalize()}.", **ask), item.id
        assert not is_right("", **ask)
        assert not is_right("I do not know that.", **ask)
        for option in set(item.options) - set(item.answers):
            assert not is_right(option, **ask), (item.id, option)


def test_the_cuisine_reference_has_its_sections_and_ordered_ranges() -> None:
    reference = french_cuisine()
    for section, least in (
        ("mother_sauces", 8), ("knife_cuts", 14), ("regional_dishes", 70), ("techniques", 60),
        ("preparations", 50), ("temperatures", 60), ("pastry_ratios", 15),
    ):  # fmt: skip
        assert len(reference[section]) >= least, section
    for name, entry in reference["temperatures"].items():
        assert entry["low"] <= entry["high"], name


def test_hashes_are_of_the_content() -> None:
    items = built_in("chef_train", ChefItem)
    assert items_sha256(items) == items_sha256(items)
    assert items_sha256(items) != items_sha256(items[1:])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ('{"id": "a"}', "Field required"),
        ('{"id":"a","prompt":"p","domain":"cooking","kind":"k","answers":[]}', "answers"),
        (
            '{"id":"a","prompt":"p","domain":"cooking","kind":"k","answers":["x"],"options":["y"]}',
            "not among the options",
        ),
        ("", "holds no records"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path, line: str, message: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load_items(path, ShortAnswer)
    assert "\n" not in str(caught.value)


def test_a_repeated_id_and_an_unknown_set_are_one_line(tmp_path) -> None:
    line = '{"id":"a","prompt":"p","domain":"cooking","kind":"k","answers":["x"]}\n'
    (tmp_path / "twice.jsonl").write_text(line * 2)
    with pytest.raises(UserError, match="line 2: a occurs twice"):
        load_items(tmp_path / "twice.jsonl", ShortAnswer)
    with pytest.raises(UserError, match="no set of ShortAnswer is called 'mcas'"):
        built_in("mcas", ShortAnswer)
