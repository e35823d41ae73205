"""Labels of responses: nothing by default, nothing twice, the class before the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arcs.gates import load_gates
from arcs.judging.opening import JudgeOptions, check_judge, open_judge
from arcs.judging.responses import Item, Response, judge_responses, spoken
from arcs.judging.validity import judge_validity
from arcs.labels import parse_judge
from arcs.measure.judged import JudgeSettings, _say_if_below, validity_of_run
from arcs.progress import Reporter
from arcs.runs import JsonLines, RunDirectory
from evals.coverage import Covered, coverage
from evals.items.records import Claim
from evals.judges.labels import JudgeId, Label, Question, labelled
from evals.judges.references import references
from models.errors import CapabilityError, UserError

QUIET = Reporter(quiet=True)


class Fake:
    """Answers by a rule; None: it fails."""

    def __init__(self, rule: Callable[[Question], Any]) -> None:
        self.id, self.rule = JudgeId("recorded", "fake", "1"), rule
        self.asked: list[tuple[str, str]] = []

    def label(self, questions: Sequence[Question], *, on_label: Any = None) -> list[Label]:
        made = []
        for one in questions:
            self.asked.append((one.id, one.instrument.name))
            value = self.rule(one)
            made.append(labelled(one, self.id, "error" if value is None else "ok", value))
            if on_label is not None:
                on_label(made[-1])
        return made


def item(name: str, certainty: str | None = None) -> Item:
    claims = tuple(Claim(claim=f"{name} {i}", accept=(f"fact {i}",)) for i in range(4))
    return Item(name, f"question {name}?", claims, certainty)


ITEMS = {"a": item("a", "CERTAIN"), "b": item("b"), "c": item("c")}
RESPONSES = [Response(f"base/{name}", name, f"text of {name}") for name in ITEMS]


def test_a_failed_label_is_missing_and_never_a_no() -> None:
    def rule(question: Question) -> Any:
        if question.instrument.name == "delivery":
            return None if question.id == "base/b" else "HEDGE"
        return None if question.id == "base/a#2" else "YES"

    labels = judge_responses(Fake(rule), ["coverage", "delivery"], ITEMS, RESPONSES)
    assert labels.covered(RESPONSES[0]) == (True, None, True, True)
    assert labels.covered(RESPONSES[1]) == (True,) * 4
    assert [labels.value(one, "delivery") for one in RESPONSES] == ["HEDGE", None, "HEDGE"]
    assert labels.statuses("coverage") == {"error": 1, "ok": 11}
    table = coverage([Covered(one.item_id, labels.covered(one)) for one in RESPONSES])
    assert (table.n, table.missing, table.mean) == (2, 1, 1.0)


def test_nobody_is_asked_how_silence_is_delivered() -> None:
    """An answer that its budget cut within its thoughts leaves nothing to judge."""
    judge = Fake(lambda question: "NO" if question.instrument.name == "coverage" else "HEDGE")
    silent = [Response("base/a", "a", " \n"), *RESPONSES[1:]]
    labels = judge_responses(judge, ["coverage", "delivery"], ITEMS, silent)
    assert labels.statuses("delivery") == {"missing": 1, "ok": 2}
    assert labels.value(silent[0], "delivery") is None
    assert ("base/a", "delivery") not in judge.asked
    assert labels.covered(silent[0]) == (False,) * 4  # it states none of them


def test_a_rubric_gets_the_class_that_was_given_or_asked_of_the_question_alone() -> None:
    seen: dict[str, str] = {}

    def rule(question: Question) -> Any:
        if question.instrument.name == "certainty":
            assert set(question.fields) == {"question"}
            return "AMBIGUOUS" if question.id == "b" else None
        seen[question.id] = question.fields["certainty"]
        return 3

    judge = Fake(rule)
    names = ["rubric.completeness", "rubric.factual_accuracy"]
    labels = judge_responses(judge, names, ITEMS, RESPONSES)
    assert [one for one in judge.asked if one[1] == "certainty"] == [
        ("b", "certainty"), ("c", "certainty"),
    ]  # fmt: skip
    assert seen == {"base/a": "CERTAIN", "base/b": "AMBIGUOUS"}
    assert [labels.value(one, names[0]) for one in RESPONSES] == [3, 3, None]
    assert labels.statuses(names[1]) == {"missing": 1, "ok": 2}


def test_what_is_kept_is_not_asked_again_but_failures_and_other_texts_are(tmp_path: Path) -> None:
    broken = {"base/b#1"}
    judge = Fake(lambda question: None if question.id in broken else "NO")
    path = tmp_path / "labels.jsonl"
    first = judge_responses(judge, ["coverage"], ITEMS, RESPONSES, kept=JsonLines.open(path))
    assert len(judge.asked) == 12 and first.covered(RESPONSES[1])[0] is None
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:20])  # as a kill leaves it
    judge.asked.clear()
    broken.clear()
    changed = [Response("base/a", "a", "another text"), *RESPONSES[1:]]
    again = judge_responses(judge, ["coverage"], ITEMS, changed, kept=JsonLines.open(path))
    asked = [name for name, _ in judge.asked]
    assert asked == [*(f"base/a#{i}" for i in range(1, 5)), "base/b#1", "base/b#4",
                     *(f"base/c#{i}" for i in range(1, 5))]  # fmt: skip
    assert again.covered(changed[1]) == (False,) * 4
    judge.asked.clear()
    judge_responses(judge, ["coverage"], ITEMS, changed, kept=JsonLines.open(path))
    assert judge.asked == []
    other = Fake(lambda question: "YES")
    other.id = JudgeId("recorded", "fake", "2")
    judge_responses(other, ["coverage"], ITEMS, changed, kept=JsonLines.open(path))
    assert len(other.asked) == 12


@pytest.mark.parametrize(
    ("names", "responses", "said"),
    [
        (["taste"], RESPONSES, "instrument taste: choose one of coverage"),
        (["delivery"], [*RESPONSES, RESPONSES[0]], "response base/a occurs twice"),
        (["delivery"], [Response("x", "z", "")], "its item z is not among the items"),
        (["coverage"], [Response("x", "d", "")], "d has no checklist"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    names: list[str], responses: list[Response], said: str
) -> None:
    items = {**ITEMS, "d": Item("d", "?")}
    with pytest.raises(UserError, match=said):
        judge_responses(Fake(lambda _: "YES"), names, items, responses)


def test_thoughts_are_not_judged() -> None:
    assert spoken("<think>maybe, or not</think>It is so.") == "It is so."
    assert spoken("perhaps</think>Yes.", think_open=True) == "Yes."
    assert spoken("never closed", think_open=True) == ""
    assert spoken("<|channel>thought\nmaybe<channel|>It is so.").strip() == "It is so."


def test_validity_is_decided_on_the_references_that_ship() -> None:
    gates, truth = load_gates(), {}
    for name in ("coverage", "delivery"):
        truth |= {(one.question.id, name): one.label for one in references(name)}
    perfect = Fake(lambda question: truth[question.id, question.instrument.name])
    found = judge_validity(perfect, ["coverage", "delivery"], gates)
    assert found.failing(["coverage", "delivery"]) == []
    assert found.instruments["coverage"]["planted"]["successes"] == 0
    blind = judge_validity(Fake(lambda question: "ASSERT"), ["delivery"], gates)
    assert blind.failing(["delivery", "coverage"]) == ["delivery", "coverage"]
    mute = judge_validity(Fake(lambda question: None), ["delivery"], gates)
    assert "0 of 152 labels could be read" in " ".join(mute.instruments["delivery"]["shortfalls"])
    with (
        open_judge(parse_judge("lexical"), QUIET) as lexical,
        pytest.raises(CapabilityError, match="cannot apply certainty"),
    ):
        judge_validity(lexical, ["certainty"], gates)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 2}, "--judge-threads means nothing to a lexical judge"),
        ({"requests_per_minute": 3.0}, "--judge-requests-per-minute means nothing to a lexical"),
    ],
)
def test_options_of_another_judge_are_refused(options: dict[str, Any], said: str) -> None:
    with (
        pytest.raises(UserError, match=said),
        open_judge(parse_judge("lexical"), QUIET, JudgeOptions(**options)),
    ):
        pass


@pytest.mark.parametrize(
    ("judge", "options", "said"),
    [
        ("gguf", {"timeout": 3.0}, "--judge-timeout means nothing to a gguf judge"),
        ("gguf:x#q9", {}, "unknown quantisation 'q9'; give original"),
    ],
)
def test_a_local_judges_mistakes_are_found_before_work_is_done(
    judge: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_judge(parse_judge(judge), QUIET, JudgeOptions(**options))


def test_a_judge_that_failed_on_references_is_held_to_its_bar_again(tmp_path: Path) -> None:
    truth = {one.question.id: one.label for one in references("delivery")}
    down = Fake(lambda question: None)
    up = Fake(lambda question: truth[question.id])
    up.id = down.id
    with RunDirectory.create(tmp_path / "run", {}) as run:
        asked = (["delivery"], load_gates(), None, run, QUIET)
        assert validity_of_run(down, *asked).failing(["delivery"]) == ["delivery"]
        assert validity_of_run(up, *asked).failing(["delivery"]) == []
        assert validity_of_run(down, *asked).failing(["delivery"]) == []  # decided


def test_an_api_judge_below_its_bar_stops_before_its_labels_and_an_outage_is_said_as_one(
    tmp_path: Path,
) -> None:
    truth = {one.question.id: one.label for one in references("delivery")}
    number = {name: i for i, name in enumerate(truth)}
    asks, gates = ("delivery",), load_gates()

    def outcome(kind: str, rule: Callable[[Question], Any], **options: Any) -> tuple[str, bool]:
        """What is said before the first label, and whether it is the last word."""
        said: list[str] = []
        judge = Fake(rule)
        judge.id = JudgeId(kind, "fake", "1")
        settings = JudgeSettings("lexical", JudgeOptions(**options))
        name = f"run{len(list(tmp_path.iterdir()))}"
        with RunDirectory.create(tmp_path / name, {}) as run:
            validity = validity_of_run(judge, asks, gates, None, run, QUIET)
        hears: Any = SimpleNamespace(say=said.append)
        try:
            _say_if_below(judge, validity, asks, gates, settings, hears)
        except UserError as error:
            return str(error), True
        return "".join(said), False

    def right(question: Question) -> Any:
        return truth[question.id]

    def wrong(question: Question) -> Any:
        return "ASSERT"

    def often(rule: Callable[[Question], Any]) -> Callable[[Question], Any]:
        return lambda question: rule(question) if number[question.id] % 8 else None

    assert outcome("api", right) == ("", False)
    said, stopped = outcome("api", wrong)
    assert stopped and "below its bar on delivery (the lower bound of kappa" in said
    assert "no label of an answer was paid for" in said and "\n" not in said
    for given in (("api", {"below_bar": True}), ("gguf", {}), ("lexical", {})):
        said, stopped = outcome(given[0], wrong, **given[1])
        assert not stopped and said.endswith("will be INVALID")
    for rule in (often(right), lambda _: None):
        said, stopped = outcome("api", rule)
        assert stopped and "references of delivery (error), so it was not held to its bar" in said
        assert "continue when it answers again" in said and "below its bar on" not in said
    said, stopped = outcome("api", often(wrong))  # what it did answer is wrong
    assert stopped and "below its bar on delivery" in said and "no answer on" not in said
