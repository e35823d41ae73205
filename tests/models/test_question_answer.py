"""A model without a chat template is asked one question as plain text, and only where that is
said."""

from __future__ import annotations

from typing import Any

import pytest

from backends.sequences import Position, TokenSequence, position_of
from models.chat import ChatEncoder, Message, load_tokenizer
from models.errors import CapabilityError
from models.question_answer import QUESTION_ANSWER, RawTemplate, line_end_ids

ASKED = [Message("user", "Is it {question}?")]


@pytest.fixture
def base(tiny_directory: Any) -> Any:
    return tiny_directory("gemma3", template=None, add_bos=True)


def test_a_question_is_rendered_by_the_one_template(base: Any) -> None:
    encoder = ChatEncoder(base, raw=QUESTION_ANSWER)
    made = encoder.encode_prompt(ASKED)
    assert made.text == "Question: Is it {question}?\nAnswer:"
    assert made.ids == encoder.encode_raw(made.text).ids
    assert made.ids[0] == encoder.bos_id
    facts = encoder.describe()["raw_template"]
    assert facts["text"] == QUESTION_ANSWER.text
    assert facts["sha256"] == QUESTION_ANSWER.sha256
    assert RawTemplate(QUESTION_ANSWER.text, False).sha256 != QUESTION_ANSWER.sha256


def test_an_answer_ends_where_its_first_line_with_text_does(base: Any) -> None:
    encoder, plain = ChatEncoder(base, raw=QUESTION_ANSWER), ChatEncoder(base)
    tokenizer = load_tokenizer(base.path)
    ends = set(encoder.end_ids) - set(plain.stop_ids)
    assert encoder.stop_ids == plain.stop_ids == plain.end_ids
    assert plain.stop_when is None and encoder.stop_when is not None
    assert ends == set(line_end_ids(tokenizer))
    for i in range(len(tokenizer)):
        assert ("\n" in tokenizer.decode([i])) == (i in ends), i
    for text, over in (("Rome\n", True), ("\n", False), ("\n\n Rome", False), ("\n Rome\n", True),
                       (" \n", False), ("Rome", False)):  # fmt: skip
        ids = tuple(tokenizer.encode(text, add_special_tokens=False))
        assert encoder.stop_when(ids) == over, text
        assert encoder.decode(ids) == text.rstrip("\n")
        if over:  # what is read is content
            asked = TokenSequence("x", (5,), ids, "generated")
            place = position_of(asked, Position.LAST_CONTENT, encoder.end_ids)
            assert place is not None and "\n" not in tokenizer.decode([asked.ids[place]])


def test_what_needs_a_chat_is_one_line(base: Any) -> None:
    more = [*ASKED, Message("assistant", "Yes."), Message("user", "Why?")]
    for encoder, messages in (
        (ChatEncoder(base), ASKED),
        (ChatEncoder(base, raw=QUESTION_ANSWER), more),
        (ChatEncoder(base, raw=QUESTION_ANSWER), [Message("system", "Be brief."), *ASKED]),
    ):
        with pytest.raises(CapabilityError, match="has no chat template") as caught:
            encoder.encode_prompt(messages)
        assert "\n" not in str(caught.value)
    assert "raw_template" not in ChatEncoder(base).describe()


def test_a_chat_template_goes_before_a_raw_one(tiny_directory: Any) -> None:
    directory = tiny_directory("llama")
    mine, plain = ChatEncoder(directory, raw=QUESTION_ANSWER), ChatEncoder(directory)
    assert mine.raw is None
    assert mine.encode_prompt(ASKED) == plain.encode_prompt(ASKED)
    assert mine.stop_ids == mine.end_ids == plain.stop_ids
    assert mine.stop_when is None
    assert mine.describe() == plain.describe()
