"""MCAS with the penalty, and second answers after a scripted failure."""

from __future__ import annotations

import pytest

from evals.humaneval.execution import Limits, execute_many
from evals.humaneval.extraction import extract
from evals.humaneval.sandbox.detect import detect_level
from evals.items.load import built_in
from evals.items.records import RecoveryItem
from evals.mcas import AXES, Reflected, summary
from evals.recovery import as_asked, as_run, conversation, feedback, program

ITEMS = built_in("recovery", RecoveryItem)


def answer(kind: str, holistic: int | None, hedged: bool | None, axes: int | None = 3) -> Reflected:
    return Reflected("x", kind, holistic, dict.fromkeys(AXES, axes), hedged)  # type: ignore[arg-type]


def test_doubt_where_nothing_is_missing_earns_nothing() -> None:
    answers = [
        answer("underspecified", 2, True), answer("underspecified", 1, False),
        answer("specified", 2, True), answer("specified", 2, False), answer("specified", 0, False),
    ]  # fmt: skip
    found = summary(answers, 0.95)
    assert found["all"]["original_percent"]["value"] == pytest.approx(70)
    assert found["all"]["penalised_percent"]["value"] == pytest.approx(50)
    assert found["all"]["penalty"] == {"value": pytest.approx(20), "n": 5}
    assert found["underspecified"]["penalty"]["value"] == 0
    assert found["specified"]["penalised_percent"]["value"] == pytest.approx(100 / 3)
    assert found["specified"]["hedged"]["successes"] == 1
    assert found["discrimination"]["value"] == pytest.approx(75 - 200 / 3)
    assert found["all"]["out_of_25"]["value"] == 15


def test_the_published_histograms_give_the_published_percentages() -> None:
    """PAPER.md 9.1, assertion 2."""
    for counts, expected in (((36, 397, 67), 53.1), ((12, 106, 382), 87.0)):
        answers = [
            answer("underspecified", score, False)
            for score, count in enumerate(counts)
            for _ in range(count)
        ]
        assert summary(answers, 0.95)["all"]["original_percent"]["value"] == pytest.approx(expected)


def test_what_has_no_label_is_left_out_and_counted() -> None:
    one = Reflected("x", "specified", 2, {**dict.fromkeys(AXES, 3), AXES[0]: None}, None)
    found = summary([one, answer("specified", None, None, None)], 0.95)
    whole = found["all"]
    assert whole["original_percent"]["n"] == 1 and whole["penalised_percent"]["value"] is None
    assert whole["out_of_25"] == {"value": None, "interval": None, "n": 0, "missing": 2}
    assert found["discrimination"] is None and whole["hedged"]["value"] is None
    assert summary([], 0.95)["underspecified"]["penalty"] == {"value": None, "n": 0}
    unfinished = Reflected("y", "specified", 2, {}, False, finished=False)
    assert summary([unfinished], 0.95, finished_only=True)["all"]["n"] == 0


def run(items: list[RecoveryItem]) -> dict[tuple[str, str], str]:
    jobs = []
    for item in items:
        first = extract(item.first_answer, as_asked(item), style="chat", think_open=False)
        assert first.code is not None
        jobs.append(((item.id, "first"), as_run(item), program(first.code)))
        jobs.append(((item.id, "reference"), as_run(item), program(item.reference)))
    done = execute_many(jobs, level=detect_level(), limits=Limits(), workers=2)
    for item in items:
        # it fails first where the set says
        place = item.tests.index(item.failing_test)
        line = as_run(item).test.splitlines()[1 + place].strip()
        assert line in done[item.id, "first"].detail, item.id
    return {key: one.status for key, one in done.items()}


def test_what_a_call_does_to_its_argument_is_seen() -> None:
    """The candidate is another process: the argument lives there, so it is looked at there."""
    chosen = [item for item in ITEMS if item.id in ("recovery-004", "recovery-064", "recovery-001")]
    found = run(chosen)
    assert {found[item.id, "reference"] for item in chosen} == {"passed"}
    assert {found[item.id, "first"] for item in chosen} == {"wrong"}


@pytest.mark.slow
def test_every_reference_passes_and_every_first_answer_fails_where_the_set_says() -> None:
    found = run(list(ITEMS))
    assert {status for (_, which), status in found.items() if which == "reference"} == {"passed"}
    assert all(status != "passed" for (_, which), status in found.items() if which == "first")


def test_the_feedback_is_what_the_test_saw() -> None:
    roles = [message.role for message in conversation(ITEMS[0])]
    assert roles == ["user", "assistant", "user"]
    assert "came out as 5." in feedback(ITEMS[0]) and ITEMS[0].failing_test in feedback(ITEMS[0])
    raised = [item for item in ITEMS if "It raised" in feedback(item)]
    assert len(raised) == 12  # as the card says
    assert all(item.reference not in feedback(item) for item in ITEMS)
