"""Judges with known faults get the numbers that these faults have."""

from __future__ import annotations

import random

import pytest

from evals.judges.instruments import INSTRUMENTS
from evals.judges.labels import JudgeId, Label, labelled
from evals.judges.lexical import LexicalJudge
from evals.judges.references import Reference, records, references
from evals.judges.validation import Bar, reordered, validate
from evals.self_verification import verifies, verifies_as_published

BAR = Bar(0.4, 0.15, 0.98)
ID = JudgeId("recorded", "made up", "0")


class Made:
    """A judge of a rule over references."""

    id = ID

    def label(self, questions, *, on_label=None):
        raise NotImplementedError


def made(given: list[Reference], rule) -> list[Label]:
    labels = []
    for place, one in enumerate(given):
        value = rule(place, one)
        status = "unparsed" if value is None else "ok"
        labels.append(labelled(one.question, ID, status, value))
    return labels


@pytest.fixture(scope="module")
def coverage() -> list[Reference]:
    return list(references("coverage"))


def test_every_instrument_has_at_least_60_references_of_every_value() -> None:
    for name, instrument in INSTRUMENTS.items():
        given = references(name)
        counts = {value: sum(one.label == value for one in given) for value in instrument.values}
        assert len(given) >= 60 and min(counts.values()) >= 6, (name, counts)
        assert len({one.question.id for one in given}) == len(given)
        for one in given:
            one.question.prompt()


def test_planted_errors_have_twins_that_differ_in_one_word(coverage) -> None:
    by_id = {one.question.id: one for one in coverage}
    planted = [one for one in coverage if one.kind == "wrong_number"]
    assert len(planted) >= 15
    for one in planted:
        twin = by_id[one.twin]
        a, b = (x.question.fields["response"].split() for x in (one, twin))
        assert (one.label, twin.label) == ("NO", "YES") and len(a) == len(b)
        assert sum(x != y for x, y in zip(a, b, strict=True)) == 1


def test_a_perfect_judge_passes_and_one_label_decides(coverage) -> None:
    found = validate(Made(), coverage, made(coverage, lambda _, one: one.label))
    assert found.kappa == 1 and found.kappa_interval.low > 0.9 and found.shortfalls(BAR) == []
    assert found.planted.value == 0 and found.injected.value == 0 and found.length is None
    always = validate(Made(), coverage, made(coverage, lambda *_: "YES"))
    assert always.kappa == 0 and always.planted.value == 1
    assert len(always.shortfalls(BAR)) == 2
    few = coverage[:59]
    found = validate(Made(), few, made(few, lambda _, one: one.label))
    assert found.shortfalls(BAR) == ["only 59 references, the bar needs 60"]
    found = validate(Made(), coverage, made(coverage, lambda *_: None))
    assert found.shortfalls(BAR)[-1].endswith("98% (162 unparsed)")


def test_noise_has_no_kappa_and_halves_of_order(coverage) -> None:
    rng = random.Random(1)
    first, second = (made(coverage, lambda *_: rng.choice(["YES", "NO"])) for _ in range(2))
    found = validate(Made(), coverage, first, again=second, reordered=second)
    assert abs(found.kappa) < 0.2 and found.kappa_interval.low < 0 < found.kappa_interval.high
    assert found.repeated.value == found.order.value and 0.35 < found.order.value < 0.65


def test_unparsed_labels_count_as_nothing_and_are_reported(coverage) -> None:
    def rule(place, one):
        return None if place % 10 == 0 else one.label

    found = validate(Made(), coverage, made(coverage, rule))
    assert found.kappa == 1 and found.statuses["unparsed"] == len(coverage) // 10 + 1
    (said,) = found.shortfalls(BAR)
    assert "labels could be read" in said


def test_a_judge_that_likes_length_is_seen(coverage) -> None:
    rule = lambda _, one: "YES" if len(one.question.fields["response"]) > 300 else "NO"  # noqa: E731
    found = validate(Made(), coverage, made(coverage, rule))
    assert found.length[0] < -0.4 and found.length[1] < 1e-4  # longer: earlier values, YES
    wrong = lambda _, one: "NO" if one.kind == "injection" else one.label  # noqa: E731
    found = validate(Made(), coverage, made(coverage, wrong))
    assert 0 < found.injected.value < 1 and found.by_kind["stated"].value == 1


def test_scales_count_how_far_off_a_label_is() -> None:
    given = list(references("rubric.completeness"))
    near = validate(Made(), given, made(given, lambda _, one: min(5, one.label + 1)))
    far = validate(Made(), given, made(given, lambda _, one: 6 - one.label))
    assert near.kappa > 0.7 and near.within_one.value == 1 and near.agreement.value < 0.5
    assert far.kappa < 0 and near.kappa_interval.low <= near.kappa <= near.kappa_interval.high


def test_two_right_labels_of_a_scale_pass_nothing() -> None:
    given = list(references("rubric.completeness"))[:2]
    found = validate(Made(), given, made(given, lambda _, one: one.label))
    assert found.kappa_interval is None and found.shortfalls(BAR)
    wrong = list(references("coverage"))[:2]
    found = validate(Made(), wrong, made(wrong, lambda place, _: ["YES", "NO"][place]))
    assert found.length is None


def test_reordered_references_ask_the_same_of_the_same_text(coverage) -> None:
    turned = reordered(coverage[:3])
    for one, other in zip(coverage, turned, strict=False):
        assert other.question.instrument.values == one.question.instrument.values[::-1]
        assert other.question.fields == one.question.fields and other.label == one.label


def test_the_lexical_judge_passes_its_bar() -> None:
    """On texts that were written without sight of it; a change of a rule may not lose this."""
    judge = LexicalJudge()
    for name in ("coverage", "delivery"):
        given = references(name)
        found = validate(judge, given, judge.label([one.question for one in given]))
        assert found.shortfalls(BAR) == [], found.shortfalls(BAR)


def test_thoughts_are_no_prose_however_they_are_marked() -> None:
    check = "Let me check: 2 + 2 = 4."
    assert verifies(check) and verifies(f"<think>hm</think>{check}")
    for text in (f"<think>{check}</think>4", f"{check}\n</think>\n4", f"<think>{check}",
                 f"<|channel>thought\n{check}<channel|>\n4"):  # fmt: skip
        assert not verifies(text), text
    assert not verifies(check, think_open=True)


def test_the_published_measure_of_self_verification_does_not_measure_it() -> None:
    """PAPER.md 3.5: "wait" fires on ``await``, and think text counts. Ours is precise, not full."""
    rows = records("svr")
    truth = [row["label"] == "VERIFIES" for row in rows]
    ours = [verifies(row["response"]) for row in rows]
    published = [verifies_as_published(row["response"]) for row in rows]
    false_ours = sum(a and not b for a, b in zip(ours, truth, strict=True))
    false_published = sum(a and not b for a, b in zip(published, truth, strict=True))
    assert false_ours == 0 and false_published > 15
    assert sum(a and b for a, b in zip(ours, truth, strict=True)) >= 15
    awaits = [row for row in rows if row["kind"] == "await"]
    assert all(verifies_as_published(row["response"]) for row in awaits)
    assert not any(verifies(row["response"]) for row in awaits)
