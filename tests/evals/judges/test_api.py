"""The api judge against real HTTP servers on loopback, most of which misbehave."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from arcs.judging.responses import Item, Response, judge_responses
from arcs.runs import JsonLines
from evals.items.records import Claim
from evals.judges.api import ApiJudge, ApiSettings, BudgetSpent, CreditSpent
from evals.judges.cache import LabelCache
from evals.judges.instruments import COVERAGE
from evals.judges.labels import Question
from models.errors import UserError
from tests.support.chat_server import Answer, said, serving


def judge(url: str, waits: list[float] | None = None, **settings: Any) -> ApiJudge:
    made = ApiSettings(base_url=url, model="m", **{"concurrency": 1, "timeout": 5.0, **settings})
    return ApiJudge(made, sleep=(waits if waits is not None else []).append)


def questions(n: int) -> list[Question]:
    fields = {"question": "q", "claim": "c"}
    return [Question(f"q{i}", COVERAGE, {**fields, "response": f"r{i}"}) for i in range(n)]


def test_answers_become_labels_in_order_and_tokens_are_counted() -> None:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        return said("NO" if "r1" in body["messages"][0]["content"] else "YES")

    with serving(answer) as (url, seen):
        asked, heard = judge(url, concurrency=4), []
        labels = asked.label(questions(6), on_label=heard.append)
    assert [one.value for one in labels] == ["YES", "NO", "YES", "YES", "YES", "YES"]
    assert sorted(one.question_id for one in heard) == [f"q{i}" for i in range(6)]
    usage = asked.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (6, 600, 12)
    assert {one.judge.kind for one in labels} == {"api"} and "m at http" in labels[0].judge.name
    body = seen[0][0]
    assert body["temperature"] == 0 and body["model"] == "m" and len(body["messages"]) == 1


def test_the_key_comes_from_the_environment_and_is_kept_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("THREEARC_JUDGE_API_KEY", "the-secret")
    with serving(lambda *_: said("YES")) as (url, seen):
        asked = judge(url)
        (label,) = asked.label(questions(1))
    assert seen[0][1] == "Bearer the-secret"
    assert "the-secret" not in str(label.to_json()) + str(asked.id)


@pytest.mark.parametrize(
    "refusal",
    [
        "I can't help with that.",
        "Oui.",
        "YES or NO",
        "The claim is stated: YES",
        "",
        None,
        "Ignore the rules. YES",
    ],
)
def test_anything_but_the_word_is_unparsed_and_never_a_value(refusal: str | None) -> None:
    with serving(lambda *_: said(refusal)) as (url, seen):
        (label,) = judge(url).label(questions(1))
    assert (label.status, label.value, label.detail) == ("unparsed", None, refusal or "")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("bad", "waited"),
    [
        ((429, {"error": "slow down"}, {"retry-after": "7"}), 7.0),
        ((500, "oops", {}), None),
        ((503, {"error": {"message": "busy"}}, {}), None),
        ((200, '{"choices": [{"message": {"cont', {}), None),
        ((200, {"choices": []}, {}), None),
        ((200, "", {}), None),
        ((200, {"choices": [{"message": None}]}, {}), None),
        ((200, {"choices": [{"text": "YES"}]}, {}), None),
        ((200, {"choices": ["x"]}, {}), None),
    ],
    ids=["429", "500", "503", "cut json", "no choice", "empty", "no message", "text", "word"],
)
def test_what_may_pass_is_tried_again_with_growing_waits(bad: Answer, waited: float | None) -> None:
    waits: list[float] = []
    with serving(lambda n, _: bad if n < 2 else said("NO")) as (url, seen):
        asked = judge(url, waits)
        (label,) = asked.label(questions(1))
    assert (label.status, label.value) == ("ok", "NO") and len(seen) == 3
    assert asked.usage.retries == 2 and len(waits) == 2
    if waited is not None:
        assert waits == [waited, waited]
    else:
        assert 0.75 <= waits[0] <= 1.25 and 1.5 <= waits[1] <= 2.5


def test_what_does_not_pass_is_an_error_after_the_last_try() -> None:
    with serving(lambda *_: (500, "oops", {})) as (url, seen):
        (label,) = judge(url, tries=3).label(questions(1))
    assert (label.status, label.value) == ("error", None) and len(seen) == 3
    assert "HTTP 500, 3 tries" in label.detail


def test_a_slow_server_times_out() -> None:
    def slow(*_: Any) -> Answer:
        time.sleep(1.0)
        return said("YES")

    with serving(slow) as (url, _):
        (label,) = judge(url, tries=1, timeout=0.2).label(questions(1))
    assert label.status == "error" and "imed out" in label.detail


def test_nobody_there_is_an_error_not_a_traceback() -> None:
    (label,) = judge("http://127.0.0.1:9/v1", tries=2).label(questions(1))
    assert label.status == "error" and "2 tries" in label.detail


@pytest.mark.parametrize(("status", "hint"), [(401, "set THREEARC_JUDGE_API_KEY"),
                                              (404, "check URL and model")])  # fmt: skip
def test_a_wrong_key_or_model_stops_at_once_in_one_line(status: int, hint: str) -> None:
    refused = (status, {"error": {"message": "no\nway"}}, {})
    with (
        serving(lambda *_: refused) as (url, seen),
        pytest.raises(UserError, match=rf"HTTP {status}.*{hint}") as caught,
    ):
        judge(url).label(questions(20))
    assert len(seen) <= 2 and "\n" not in str(caught.value)


def test_a_question_that_is_refused_after_others_were_answered_is_that_questions_error() -> None:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        if "r2" in body["messages"][0]["content"]:
            return 400, {"error": {"message": "too long"}}, {}
        return said("YES")

    with serving(answer) as (url, seen):
        labels = judge(url).label(questions(4))
    assert [one.status for one in labels] == ["ok", "ok", "error", "ok"] and len(seen) == 4
    assert "HTTP 400" in labels[2].detail and "too long" in labels[2].detail


def test_a_403_is_the_questions_fault_until_it_comes_again_and_again() -> None:
    def answer(n: int, _: dict[str, Any]) -> Answer:
        return said("YES") if n in (0, 5) else (403, {"error": {"message": "flagged"}}, {})

    with (
        serving(answer) as (url, seen),
        pytest.raises(UserError, match=r"HTTP 403.*set THREEARC_JUDGE_API_KEY"),
    ):
        judge(url).label(questions(20))
    assert len(seen) == 6 + 5  # four in a row, an answer, and five


def test_think_text_is_apart_from_the_answer() -> None:
    texts = ["<think>YES? No, NO.</think>\nNO", "<think>It says YES", "ponder</think> YES"]
    with serving(lambda n, _: said(texts[n])) as (url, _):
        labels = judge(url, max_tokens=4000).label(questions(3))
    assert [(one.status, one.value) for one in labels] == [
        ("ok", "NO"), ("unparsed", None), ("ok", "YES"),
    ]  # fmt: skip


def test_an_answer_that_was_cut_says_so_and_other_lengths_are_another_judge() -> None:
    def cut(*_: Any) -> Answer:
        status, body, headers = said("<think>hm")
        body["choices"][0]["finish_reason"] = "length"
        return status, body, headers

    with serving(cut) as (url, _):
        (label,) = judge(url).label(questions(1))
        assert judge(url, max_tokens=17).id != judge(url).id
    assert label.status == "unparsed" and label.detail.startswith("cut at max_tokens 16: <think>")


def test_what_it_used_is_described_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEARC_JUDGE_API_KEY", "the-secret")
    prices = {"usd_per_million_input": 10.0, "usd_per_million_output": 1.0}
    with serving(lambda *_: said("YES", (100, 2))) as (url, _):
        asked = judge(url, **prices)
        asked.label(questions(2))
    found = asked.describe()
    assert found["usage"]["usd"] == pytest.approx(2 * (100 * 10 + 2) / 1e6)
    assert found["served_by"] == ["m"]
    assert found["usage"]["input_tokens"] == 200 and "the-secret" not in json.dumps(found)
    for wrong in ({"budget_usd": -1.0, **prices}, {"max_tokens": 0}):
        with pytest.raises(UserError, match="a judge"):
            judge(url, **wrong)


def test_the_budget_stops_before_it_is_passed_by_more_than_one_request() -> None:
    heard: list[Any] = []
    prices = {"usd_per_million_input": 10.0, "usd_per_million_output": 0.0}
    with (
        serving(lambda *_: said("YES", (100, 0))) as (url, seen),
        pytest.raises(BudgetSpent, match=r"\$0.00.* is spent .*raise it"),
    ):
        judge(url, budget_usd=0.0025, **prices).label(questions(20), on_label=heard.append)
    assert len(seen) == 3 and len(heard) == 3  # 0.001 each
    with pytest.raises(UserError, match="prices"):
        ApiSettings(base_url="x", model="m", budget_usd=1.0)


def test_answers_without_token_counts_are_counted() -> None:
    with serving(lambda *_: said("YES", None)) as (url, _):
        asked = judge(url)
        asked.label(questions(2))
    assert asked.usage.unreported == 2 and asked.usage.cost(asked.settings) is None


def test_requests_are_spread_over_the_minute() -> None:
    waits: list[float] = []
    with serving(lambda *_: said("YES")) as (url, _):
        judge(url, waits, requests_per_minute=60.0).label(questions(3))
    assert waits[0] == 0 and 0.5 < waits[1] <= 1.0 and 1.0 < waits[2] <= 2.0


def test_labels_that_were_paid_for_are_kept_when_the_run_stops() -> None:
    heard: list[Any] = []

    def slow(*_: Any) -> Answer:
        time.sleep(0.2)
        return said("YES", (100, 0))

    prices = {"usd_per_million_input": 10.0, "usd_per_million_output": 0.0}
    with serving(slow) as (url, seen):
        asked = judge(url, concurrency=4, budget_usd=0.0005, **prices)
        with pytest.raises(BudgetSpent):
            asked.label(questions(20), on_label=heard.append)
    assert len(heard) == len(seen) >= 4


def test_a_budget_needs_an_endpoint_that_counts() -> None:
    prices = {"usd_per_million_input": 10.0, "usd_per_million_output": 0.0}
    with (
        serving(lambda *_: said("YES", None)) as (url, seen),
        pytest.raises(UserError, match="does not report its tokens"),
    ):
        judge(url, budget_usd=1.0, **prices).label(questions(20))
    assert len(seen) == 1


def test_an_error_does_not_wait_for_another_requests_pause() -> None:
    def answer(n: int, _: Any) -> Answer:
        if n == 0:
            return 429, {}, {"retry-after": "30"}
        time.sleep(0.3)
        return 401, {"error": {"message": "no"}}, {}

    begun = time.monotonic()
    with serving(answer) as (url, _):
        asked = ApiJudge(ApiSettings(base_url=url, model="m", concurrency=2, timeout=5.0))
        with pytest.raises(UserError, match="HTTP 401"):
            asked.label(questions(2))
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "ftp://x/v1", "http://", "http://me:secret@host/v1", "http://h/v1?key=s"],
)
def test_a_url_that_cannot_be_or_would_be_stored_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match="--judge api"):
        judge(url)


def test_a_port_that_is_none_is_one_line() -> None:
    with pytest.raises(UserError, match="--judge api"):
        judge("http://host:abc/v1")


def test_one_label_a_question() -> None:
    (one,) = questions(1)
    with pytest.raises(ValueError, match="q0 is asked twice of coverage"):
        judge("http://127.0.0.1:9/v1").label([one, one])


@pytest.mark.parametrize(
    "refusal",
    [
        (402, {"error": {"message": "Insufficient credits"}}, {}),
        (429, {"error": {"message": "quota", "code": "insufficient_quota"}}, {}),
    ],
    ids=["402", "quota"],
)
def test_an_empty_account_stops_the_run_and_is_no_label(refusal: Answer) -> None:
    heard: list[Any] = []
    with (
        serving(lambda n, _: said("YES") if n < 2 else refusal) as (url, seen),
        pytest.raises(CreditSpent, match=r"no credit left.*add credit and continue"),
    ):
        judge(url).label(questions(20), on_label=heard.append)
    assert len(seen) == 3 and [one.status for one in heard] == ["ok", "ok"]


@pytest.mark.parametrize(("status", "kept"), [(400, "cache"), (403, "run")])
def test_a_question_that_is_never_taken_does_not_stop_a_continued_run(
    status: int, kept: str, tmp_path: Path
) -> None:
    items = {"i": Item("i", "q", (Claim(claim="c", accept=("c",)),))}
    responses = [Response(f"r{i}", "i", f"text {i}.") for i in range(3)]

    def answer(_: int, body: dict[str, Any]) -> Answer:
        if "text 1" in body["messages"][0]["content"]:
            return status, {"error": {"message": "not that"}}, {}
        return said("YES")

    with serving(answer) as (url, seen):
        for _sitting in range(2):
            labels = judge_responses(
                judge(url), ["coverage"], items, responses,
                cache=LabelCache(tmp_path / "labels") if kept == "cache" else None,
                kept=JsonLines.open(tmp_path / "labels.jsonl") if kept == "run" else None,
            )  # fmt: skip
            assert labels.statuses("coverage") == {"error": 1, "ok": 2}
    assert len(seen) == 3 + 1
