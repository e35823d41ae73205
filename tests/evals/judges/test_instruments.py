"""What judges are asked, and how their answers are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.judges.instruments import CERTAINTY, COVERAGE, INSTRUMENTS, MCAS, RUBRIC
from evals.judges.labels import JudgeId, Label, Question, labelled


@pytest.mark.parametrize(
    ("instrument", "answer", "value"),
    [
        (CERTAINTY, "UNCERTAIN", "UNCERTAIN"),  # PAPER.md J1: it was read as CERTAIN
        (CERTAINTY, " certain.\n", "CERTAIN"),
        (CERTAINTY, "**AMBIGUOUS**", "AMBIGUOUS"),
        (CERTAINTY, "not CERTAIN", None),
        (CERTAINTY, "CERTAIN or UNCERTAIN", None),
        (CERTAINTY, "", None),
        (COVERAGE, '"yes"', "YES"),
        (COVERAGE, "YES, it does", None),
        (COVERAGE, "Yesterday", None),
        (RUBRIC[0], "4", 4),
        (RUBRIC[0], "4/5", None),
        (RUBRIC[0], "14", None),
        (RUBRIC[0], "4.5", None),
        (MCAS, "0", 0),
        (MCAS, "3", None),
    ],
)
def test_an_answer_is_one_word_or_unparsed(instrument, answer, value) -> None:
    assert instrument.parse(answer) == value


@given(st.text(max_size=30), st.sampled_from(list(INSTRUMENTS.values())))
def test_no_text_is_read_as_a_value_it_does_not_name(text, instrument) -> None:
    value = instrument.parse(text)
    assert value is None or str(value) in text.upper()


@given(st.text(max_size=80))
def test_braces_and_fields_in_a_text_stay_text(text) -> None:
    fields = {"question": text + "{claim}", "response": "{0} {response}", "claim": "{question}"}
    prompt = COVERAGE.render(fields)
    assert all(given in prompt for given in fields.values())


def test_every_instrument_begins_alike_for_all_items_and_lists_its_answers() -> None:
    for name, one in INSTRUMENTS.items():
        start = one.template.index("{" + one.fields[0] + "}")
        texts = dict.fromkeys(one.fields, "x")
        assert one.render(texts)[:start] == one.template[:start] and start > 200
        assert all(str(value) in one.template.splitlines()[-1] for value in one.values)
        assert one.name == name


def test_the_certainty_class_is_asked_from_the_question_alone() -> None:
    assert CERTAINTY.fields == ("question",)
    assert all("certainty" in one.fields for one in RUBRIC)


def test_hashes_tell_instruments_orders_and_texts_apart() -> None:
    hashes = {one.sha256 for one in INSTRUMENTS.values()}
    assert len(hashes) == len(INSTRUMENTS)
    assert COVERAGE.reordered().sha256 not in hashes
    assert COVERAGE.reordered().values == ("NO", "YES")
    first = Question("a", COVERAGE, {"question": "q", "response": "r", "claim": "c"})
    others = [
        Question("a", COVERAGE, {"question": "q", "response": "r", "claim": "d"}),
        Question("a", COVERAGE, {"question": "qr", "response": "", "claim": "c"}),
        Question("a", COVERAGE, dict(first.fields), accept=("p",)),
    ]
    assert first.text_sha256() not in {one.text_sha256() for one in others}
    same = Question("b", COVERAGE, dict(first.fields))
    assert first.text_sha256() == same.text_sha256()


def test_a_label_has_a_value_if_and_only_if_it_is_ok() -> None:
    question = Question("a", COVERAGE, {"question": "q", "response": "r", "claim": "c"})
    judge = JudgeId("lexical", "x", "0")
    made = labelled(question, judge, "ok", "NO", probability=0.5)
    assert Label.from_json(made.to_json()) == made
    with pytest.raises(ValueError, match="a: status ok with value None"):
        labelled(question, judge, "ok")
    for status in ("unparsed", "error", "missing"):
        with pytest.raises(ValueError, match=status):
            labelled(question, judge, status, "YES")  # type: ignore[arg-type]
