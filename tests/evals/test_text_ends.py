"""Whether texts look finished, by examples from the rule of PAPER.md 5.9 and from CommonMark."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.text_ends import (
    ends_a_block,
    ends_a_sentence,
    has_open_fence,
    is_prose,
    looks_unfinished,
)

PROSE = "Whisk the yolks. Add the butter slowly. "


@pytest.mark.parametrize(
    "text",
    [
        "Done.",
        "Done!  \n",
        "Is it?",
        'He said "done."',
        "**Serve at once.**",
        "(As above.)",
        "_So._",
    ],
)
def test_a_mark_ends_a_sentence_also_behind_quotes_and_emphasis(text: str) -> None:
    assert ends_a_sentence(text)


@pytest.mark.parametrize(
    "text", ["", "   ", "Serve it with", "Steps:", "1.5 litres", "**Bold**", "a, b,", "(e.g.,"]
)
def test_other_ends_are_not_sentence_ends(text: str) -> None:
    assert not ends_a_sentence(text)


def test_a_sentence_inside_an_open_code_fence_does_not_end_the_text() -> None:
    assert not ends_a_sentence("```\n# Done.")
    assert ends_a_sentence("```\nx = 1\n```\nDone.")


def test_fences_close_by_their_own_mark_only() -> None:
    assert has_open_fence("```python\nx = 1\n~~~\n")
    assert has_open_fence("````\n```\n")  # a shorter mark does not close
    assert has_open_fence("```\n``` python\n")  # a mark with words behind it does not close
    assert not has_open_fence("```python\nx = 1\n```\n")
    assert not has_open_fence("`inline` code")


@pytest.mark.parametrize("text", ["```\nx\n```", "| a | b |", "text\n---", '{"a": 1}', "[1, 2]"])
def test_complete_blocks_need_no_full_stop(text: str) -> None:
    assert ends_a_block(text)
    assert not ends_a_block(text + "\nand then the")


def test_only_prose_and_open_fences_can_look_unfinished() -> None:
    assert looks_unfinished(PROSE + "Then stir the") is True
    assert looks_unfinished(PROSE + "Then stir.") is False
    assert looks_unfinished("B") is None and looks_unfinished("") is None
    assert looks_unfinished("def f():\n    return 1") is None
    assert looks_unfinished("```python\ndef f():") is True


def test_prose_needs_two_sentence_ends_before_its_last_word() -> None:
    assert is_prose(PROSE + "Then") and not is_prose("One sentence. Then") and not is_prose("3.14")


@given(st.text(), st.sampled_from([".", "!", "?"]), st.text(alphabet="\"'*_)]", max_size=4))
def test_a_mark_with_closers_always_ends_a_text_without_fences(
    text: str, mark: str, closers: str
) -> None:
    assert ends_a_sentence(text.replace("`", "").replace("~", "") + mark + closers + " \n")


@given(st.text())
def test_every_text_gets_an_answer(text: str) -> None:
    assert looks_unfinished(text) in (True, False, None)
    if looks_unfinished(text):
        assert not ends_a_sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        "First we add 3 and 4. Then we double it. That gives 14.\n#### 14",
        "We square both sides. The root is positive. So the answer is\n\\boxed{42}",
        "It follows from above. Both terms cancel. Hence $x = 3$",
        "Here is the list. It is short. Enjoy:\n1. flour\n2. butter\n3. one egg",
        "这是第一句。这是第二句。这是第三句。",
    ],
)
def test_answers_that_end_without_a_latin_full_stop_are_not_unfinished(text: str) -> None:
    assert looks_unfinished(text) is not True


@pytest.mark.parametrize(
    "text",
    [
        "It is done. It is good. But then we heard that",
        "First we add. Then we double. So\n### What comes ne",
        "Two things matter. Both are old.\n1. The heat, which must be low.\n2. The time, whi",
    ],
)
def test_texts_that_break_off_still_do(text: str) -> None:
    assert looks_unfinished(text) is True


def test_the_number_of_a_list_item_ends_no_sentence() -> None:
    assert not is_prose("1. flour\n2. butter\n3. sugar")
    assert is_prose("It is done. It is good. 1. flour")
