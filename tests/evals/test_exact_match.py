"""Short answers: how a text is read, when a cut one is settled, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.exact_match import accuracy, bounds, by_domain, encode_question, score
from evals.items.load import built_in
from evals.items.records import ShortAnswer
from evals.items.short_answer import INSTRUCTION, Reading, is_right, is_settled, read
from models.chat import ChatEncoder
from models.directory import ModelDirectory

PERU = {"prompt": "What is the capital of Peru?", "accepted": ["lima"]}
TEA = {"prompt": "Is tea a drink or a tool?", "accepted": ["drink"], "options": ["drink", "tool"]}
SUM = {"prompt": "What is 700 plus 53?", "accepted": ["753"]}


def item(id: str = "q1", domain: str = "geography", **case: Any) -> ShortAnswer:
    found = {"id": id, "domain": domain, "kind": "k", "prompt": case["prompt"]}
    return ShortAnswer.model_validate(
        {**found, "answers": case["accepted"], "options": case.get("options", ())}
    )


@pytest.mark.parametrize(
    ("case", "answer", "reading"),
    [
        (PERU, "The capital of Peru is Lima.", Reading.RIGHT),
        (PERU, "Quito, not Lima", Reading.WRONG),
        (PERU, "The capital of Peru is", Reading.UNPARSED),
        (PERU, "", Reading.UNPARSED),
        (PERU, "```\n```", Reading.UNPARSED),
        (TEA, "It is a tool, or a drink.", Reading.WRONG),
        (TEA, "I drink it. No: a tool", Reading.RIGHT),  # the first option named decides
        (TEA, "A beverage.", Reading.UNPARSED),  # no option named
    ],
)
def test_an_answer_is_right_wrong_or_unread(case: Any, answer: str, reading: Reading) -> None:
    assert read(answer, **case) is reading
    assert is_right(answer, **case) is (reading is Reading.RIGHT)


@pytest.mark.parametrize(
    ("case", "answer", "settled"),
    [
        (PERU, "The capital of Peru is Lima", False),  # half of "Limassol", for all we know
        (PERU, "The capital of Peru is Lima, which lies on the coast of", True),
        (PERU, "The capital of Peru is Lima\n", True),  # the line has ended
        (PERU, "Lima\nand then", True),
        (PERU, "The capital of Peru", False),
        (PERU, "\n```\n", False),  # the line that is read is still to come
        (PERU, "Quito and", False),
        (SUM, "Seven hundred", False),  # "... and fifty three"
        (SUM, "Seven hundred and forty. That is what comes of it", True),
        (TEA, "Well, tea is drunk all over the world and so it is", False),
    ],
)
def test_a_cut_answer_is_settled_where_no_text_could_change_it(
    case: Any, answer: str, settled: bool
) -> None:
    assert is_settled(answer, **case) is settled


TEXT = "Lima drink tool seven hundred and fifty three twenty 753 - = the is Quito of peru"
WORDS = st.sampled_from([*TEXT.split(), "\n", "```"])


@given(
    st.sampled_from([PERU, TEA, SUM]),
    st.lists(WORDS, max_size=14),
    st.lists(WORDS, max_size=8),
    st.booleans(),
)
def test_a_settled_answer_reads_the_same_whatever_follows(
    case: Any, begun: list[str], more: list[str], joined: bool
) -> None:
    answer = " ".join(begun)
    if is_settled(answer, **case):
        rest = ("" if joined else " ") + " ".join(more)
        assert read(answer + rest, **case) is read(answer, **case)


def test_what_is_open_is_cut_unsettled_and_no_loop() -> None:
    question = item(**PERU)
    settled = "The capital of Peru is Lima, which lies on the coast of"
    unsettled = "The capital of Peru"
    new, loop = list(range(48)), [5, 6] * 24
    kinds = {
        "finished": score(question, unsettled, new, truncated=False),
        "settled": score(question, settled, new, truncated=True),
        "loop": score(question, unsettled, loop, truncated=True),
        "open": score(question, unsettled, new, truncated=True),
    }
    assert [name for name, answer in kinds.items() if answer.open] == ["open"]
    assert [name for name, answer in kinds.items() if answer.loop] == ["loop"]
    assert not score(question, unsettled, loop, truncated=False).loop
    found = accuracy(list(kinds.values()))
    assert (found.n, found.right, found.unparsed, found.truncated) == (4, 1, 3, 3)
    assert (found.loops, found.open) == (1, 1)
    plain = found.to_json()
    assert plain["accuracy"] == 0.25 and plain["finished_share"] == 0.25 and plain["wrong"] == 0
    ends = bounds(list(kinds.values()))
    assert ends.low == (False, True, False, False)
    assert ends.high == (False, True, False, True)
    assert ends.unfinished == 1


def test_an_open_answer_that_reads_right_is_bounded_too() -> None:
    answer = score(item(**PERU), "Lima", list(range(48)), truncated=True)
    assert answer.right and answer.open
    ends = bounds([answer])
    assert (ends.low, ends.high) == ((False,), (True,))


def test_domains_are_counted_apart() -> None:
    answers = [
        score(item("a", "cooking", **TEA), "drink", [1], truncated=False),
        score(item("b", "geography", **PERU), "Quito", [1], truncated=False),
        score(item("c", "cooking", **TEA), "tool", [1], truncated=False),
    ]
    found = by_domain(answers)
    assert {name: (one.right, one.n) for name, one in found.items()} == {
        "cooking": (1, 2),
        "geography": (0, 1),
    }
    low, high = found["cooking"].interval.low, found["cooking"].interval.high
    assert (low, high) == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, 1 of 2


def test_the_model_is_asked_the_question_and_the_instruction(
    smollm_directory: ModelDirectory,
) -> None:
    question = built_in("short_answers", ShortAnswer)[0]
    text = encode_question(ChatEncoder(smollm_directory), question).text
    assert text.endswith(
        f"<|im_start|>user\n{question.prompt}{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    )
