"""The judge without a model: phrases with negation and numbers, hedges with dominance."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.items.load import built_in
from evals.items.records import ChefItem
from evals.judges.instruments import CERTAINTY, COVERAGE, DELIVERY
from evals.judges.labels import Question
from evals.judges.lexical import LexicalJudge, covers, delivery
from evals.judges.matching import states, words
from models.errors import CapabilityError


def _claim(response: str, claim: str = "c", accept: tuple[str, ...] = ()) -> Question:
    fields = {"question": "q", "response": response, "claim": claim}
    return Question("x", COVERAGE, fields, accept=accept)


def _answer(response: str) -> Question:
    return Question("x", DELIVERY, {"question": "q", "response": response})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Cook it at 82 degrees C.", "82 °c"),
        ("Cook it at 82 °C.", "82°c"),
        ("Keep at −20 °C", "-20 °c"),
        ("1,000 grams", "1000 g"),
        ("180–190 °C", "180 to 190"),
        ("a ten-minute rest", "ten minute"),
        ("Crème brûlée", "creme brulee"),
        ("the cœur", "coeur"),
        ("don’t boil", "don't boil"),
        ("piment d'Espelette", "espelette"),
        ("the north's version", "the north"),
    ],
)
def test_one_form_for_words_and_numbers(text, found) -> None:
    assert states(words(text), words(found))


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("at 182 °C", "82 °c"),
        ("venice", "nice"),
        ("60 °C", "6 °c"),
        ("12.5 g", "5 g"),
        ("", "a"),
        ("the fat", ""),
    ],
)
def test_parts_of_words_and_numbers_are_not_found(text, phrase) -> None:
    assert not states(words(text), words(phrase))


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Use cider.", True),
        ("Do not use cider.", False),
        ("It is never made with cider.", False),
        ("It isn't cider.", False),
        ("Wine, not cider.", False),
        ("Wine rather than cider.", False),
        ("Cider rather than wine.", True),
        ("That it needs cider is a myth.", False),
        ("Not wine but cider.", True),
        ("It is not wine. Use cider.", True),
        ("Don't use wine, use cider.", True),
        ("No doubt you know it; cider does it.", True),
    ],
)
def test_a_denied_phrase_is_not_stated(text, stated) -> None:
    assert (covers(_claim(text, accept=("cider",))) == "YES") is stated


def test_a_negative_claim_is_shown_by_phrases_that_are_denied() -> None:
    assert covers(_claim("You must not boil it.", "It must not boil.", ("boil it",))) == "YES"
    assert covers(_claim("There's no potato in it.", "c", ("no potato",))) == "YES"


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_is_judged(response, claim) -> None:
    assert covers(_claim(response, claim)) in ("YES", "NO")
    assert covers(_claim(response, claim, ("x",))) in ("YES", "NO")
    silent = re.search(r"\w", response) is None
    assert delivery(_answer(response)) in ((None,) if silent else ("ASSERT", "HEDGE"))


@pytest.mark.parametrize("name", ["chef_train", "chef_fresh"])
def test_every_chef_claim_is_shown_by_its_own_wording_and_not_by_the_question(name) -> None:
    missed, echoed = [], []
    for item in built_in(name, ChefItem):
        for one in item.checklist:
            if covers(_claim(one.claim, one.claim, one.accept)) != "YES":
                missed.append(one.claim)
            if covers(_claim(item.prompt, one.claim, one.accept)) == "YES":
                echoed.append((item.id, one.claim))
    assert missed == [] and len(echoed) <= 6, echoed


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("It melts at 32 °C.", "ASSERT"),
        ("It might melt at around 32 °C.", "HEDGE"),
        ("I'm not sure, it could be either of the two.", "HEDGE"),
        ("It melts at 32. It is fat. It may smell. Heat it.", "ASSERT"),
        ("You may use a fork. You might want to wait.", "ASSERT"),  # permission and advice
        ("It definitely might.", "ASSERT"),  # as much certainty as doubt
        ("```python\nx = maybe(perhaps)\n```\nThis prints 3.", "ASSERT"),
        ("```python\nreturn 3\n```", "ASSERT"),
        ("", None),  # no label by default
        (" ... ", None),
    ],
)
def test_delivery_is_what_dominates(response, value) -> None:
    assert delivery(_answer(response)) == value


def test_labels_come_in_order_with_the_judges_hash_and_one_by_one() -> None:
    judge, seen = LexicalJudge(), []
    questions = [_answer("It is."), _claim("cider", accept=("cider",))]
    labels = judge.label(questions, on_label=seen.append)
    assert [label.value for label in labels] == ["ASSERT", "YES"] and seen == labels
    assert judge.label([_answer("")])[0].status == "missing"
    assert {label.judge for label in labels} == {judge.id} and len(judge.id.version) == 64


def test_what_it_cannot_apply_is_refused_before_anything_is_labelled() -> None:
    seen = []
    questions = [_answer("x"), Question("c", CERTAINTY, {"question": "q"})]
    with pytest.raises(CapabilityError, match="cannot apply certainty"):
        LexicalJudge().label(questions, on_label=seen.append)
    assert seen == []
