"""The whole pipeline against real HTTP servers on loopback, able and misbehaving ones."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("openai")

from arcs import provenance
from arcs.data.lines import read_good
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from arcs.teachers import command, prompting
from arcs.teachers.asking import Question
from arcs.teachers.checking import files_of, is_generated, problems_of
from arcs.teachers.config import ARC, GenerateConfig, parse
from arcs.teachers.endpoint_teacher import allowances
from arcs.teachers.engine_teacher import EngineTeacher, opened_gguf
from arcs.teachers.pipeline import checked, plan, run_generate
from arcs.teachers.purse import Purse
from arcs.teachers.report import report
from arcs.teachers.roster import PRESETS, Teacher
from evals.endpoint import BudgetSpent, CreditSpent, Endpoint, EndpointSettings, Failed
from models.chat import Message
from models.errors import UserError
from tests.support.chat_server import Answer, said, serving, teacher

SIZES = {"gold": 6, "failure_traces": 3, "counterexamples": 3, "boundary": 3, "fresh": 3}
Reply = Callable[[int, dict[str, Any]], Answer]


@pytest.fixture(autouse=True)
def few_held_out_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two held-out prompts in place of 2,000: what is tested here is not their number."""
    asked = {"set": {"item": ("How many grams of salt does a litre of brine for olives take?",)}}
    monkeypatch.setattr(prompting, "held_out_sets", lambda: asked)


def roster(tmp_path: Path, url: str, **more: Any) -> Path:
    settings = {
        "kind": "endpoint", "url": url, "model": "writer", "licence": "mit", "concurrency": 3,
        "timeout": 5.0, "back_off": 0.0, "usd_per_million_input": 10.0,
        "usd_per_million_output": 0.0, **more,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    path = tmp_path / "teachers.toml"
    path.write_text("[teachers.t]\n" + "\n".join(lines) + '\n[roles]\ndefault = "t"\n')
    return path


def generate(tmp_path: Path, url: str, out: str = "run", **settings: Any) -> dict[str, Any]:
    more = settings.pop("teacher", {})
    config = GenerateConfig(teachers=str(roster(tmp_path, url, **more)), **{**SIZES, **settings})
    path = tmp_path / out
    if (path / "manifest.json").exists():
        run = RunDirectory.resume(path)
    else:
        run = RunDirectory.create(
            path, provenance.first_manifest(ARC, config.model_dump(mode="json"), [])
        )
    with run:
        return run_generate(config, run, Reporter(quiet=True), sleep=lambda _: None)


def able(_: int, body: dict[str, Any]) -> Answer:
    return said(teacher(body), (100, 10))


def said_by(metrics: dict[str, Any]) -> str:
    """What people read, as one line."""
    console = Console(file=io.StringIO(), width=200)
    console.print(report(metrics))
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def results(run: Path) -> dict[str, bytes]:
    """Every file that a finished run promises, but for the order in which answers came."""
    names = ("metrics.json", "dropped.jsonl", "prompts.jsonl", "fresh_prompts.jsonl")
    files = [run / name for name in names] + sorted((run / "records").iterdir())
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_four_types_of_records_with_splits_and_provenance(tmp_path: Path) -> None:
    with serving(able) as (url, seen):
        metrics = generate(tmp_path, url)
    run = tmp_path / "run"
    kept = {kind: one["kept"] for kind, one in metrics["records"].items()}
    assert kept == {"gold": 6, "failure_trace": 3, "boundary": 3, "counterexample": 3}
    # 4 stages a gold record, 3 a trace, 4 a pair (plan, answer, both orders), 1 a boundary case
    assert len(seen) == 6 * 4 + 3 * 3 + 3 * 4 + 3
    prompts = {one.id: one for one in read_good(run / "prompts.jsonl").records}
    for path in (run / "records").glob("*.jsonl"):
        for record in read_good(path).records:
            made = record.provenance
            prompt = prompts[made["prompt_id"]]
            assert (record.prompt, record.split) == (prompt.prompt, prompt.split)
            assert made["licences"] == ["mit"] and made["stages"]
    trace = read_good(run / "records/failure_traces.jsonl").records[0]
    assert trace.attempt and trace.critique and "VERDICT" not in trace.critique
    pair = read_good(run / "records/counterexamples.jsonl").records[0]
    gold = {one.id: one for one in read_good(run / "records/gold.jsonl").records}
    assert pair.chosen == gold[pair.provenance["chosen_from"]].response and pair.error
    assert {one.split for one in prompts.values()} == {"train", "held_out"}
    assert metrics["usd"] == pytest.approx(len(seen) * 100 * 10 / 1e6)
    assert metrics["prompts"]["generator_not_independent"] is True


def test_the_command_leaves_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(able) as (url, _):
        flags = {**SIZES, "teachers": str(roster(tmp_path, url))}
        command.start(flags, out=tmp_path / "run", run=None, as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["records"]["gold"]["kept"] == 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data-generate" in page and "This run makes no claim" in page and "teachers.toml" in page
    assert "report.html" in said.err


def test_each_stage_sees_what_it_should(tmp_path: Path) -> None:
    with serving(able) as (url, seen):
        generate(tmp_path, url, failure_traces=0, counterexamples=0, boundary=1, gold=5)
    asked = [body["messages"][-1]["content"] for body, *_ in seen]
    answers = {one: teacher({"messages": [{"content": one}]}) for one in asked}
    first = next(one for one in asked if one.endswith(("?", ".")) and "\n" not in one)
    second = next(one for one in asked if "Check the first answer" in one and first in one)
    third = next(one for one in asked if "What in the first answer" in one and first in one)
    last = next(one for one in asked if "Write the final answer" in one and first in one)
    assert answers[first] in second and answers[first] in third
    assert answers[second] not in third
    assert all(answers[one] in last for one in (first, second, third))


def test_serial_shows_the_third_stage_the_second(tmp_path: Path) -> None:
    with serving(able) as (url, seen):
        generate(tmp_path, url, failure_traces=0, counterexamples=0, boundary=1, gold=5,
                 serial=True)  # fmt: skip
    asked = [body["messages"][-1]["content"] for body, *_ in seen]
    checks = [teacher({"messages": [{"content": one}]}) for one in asked if "A first answer" in one]
    thirds = [one for one in asked if "A check of it" in one]
    assert len(thirds) == 5 and all(any(check in one for check in checks) for one in thirds)


@pytest.mark.parametrize(
    "bad",
    [
        (429, {"error": "slow down"}, {"retry-after": "1"}),
        (500, "oops", {}),
        (200, '{"choices": [{"message": {"cont', {}),
        "slow",
    ],
    ids=["429", "500", "cut json", "slow"],
)
def test_what_may_pass_is_tried_again_and_changes_nothing(tmp_path: Path, bad: Any) -> None:
    small = {"gold": 5, "failure_traces": 1, "counterexamples": 1, "boundary": 1}

    def flaky(n: int, body: dict[str, Any]) -> Answer:
        if n % 7 != 3:
            return able(n, body)
        if bad != "slow":
            return bad
        time.sleep(1.0)
        return able(n, body)

    with serving(able) as (url, _):
        generate(tmp_path, url, "good", **small)
    with serving(flaky) as (url, _):
        generate(tmp_path, url, "flaky", teacher={"timeout": 0.5}, **small)
    good, other = results(tmp_path / "good"), results(tmp_path / "flaky")
    assert good == other


def test_what_never_comes_is_dropped_with_its_reason_and_asked_again_later(tmp_path: Path) -> None:
    healthy = threading.Event()

    def half(n: int, body: dict[str, Any]) -> Answer:
        if "Check the first answer" in body["messages"][-1]["content"] and not healthy.is_set():
            return 500, "oops", {}
        return able(n, body)

    with serving(half) as (url, seen):
        metrics = generate(tmp_path, url, teacher={"tries": 2})
        assert metrics["records"]["gold"]["kept"] == 0 and metrics["failed"] == 6
        assert metrics["failed_may_come"] == 6 and "refused" not in said_by(metrics)
        assert "6 may have one later: continue with --run" in said_by(metrics)
        dropped = [json.loads(one) for one in (tmp_path / "run/dropped.jsonl").open()]
        rules = Counter((one["kind"], one["rule"]) for one in dropped)
        assert rules["gold", "failed"] == 6 and rules["counterexample", "chosen_dropped"] == 3
        assert "deliberate: HTTP 500, 2 tries" in dropped[0]["detail"]
        healthy.set()
        before = len(seen)
        metrics = generate(tmp_path, url, teacher={"tries": 2})
    assert metrics["records"]["gold"]["kept"] == 6 and metrics["failed"] == 0
    again = [body["messages"][-1]["content"] for body, *_ in seen[before:]]
    assert sum("Check the first answer" in one for one in again) == 6
    assert len(again) == 6 * 2 + 3 * 4  # what was missing, nothing else


def test_an_empty_answer_is_an_error_and_nothing_stands_in(tmp_path: Path) -> None:
    def thinks(n: int, body: dict[str, Any]) -> Answer:
        if "Write the final answer" not in body["messages"][-1]["content"]:
            return able(n, body)
        return said(None, thoughts="A fine answer could be given here, with butter.")

    with serving(thinks) as (url, seen):
        metrics = generate(tmp_path, url)
        paid = len(seen)
        generate(tmp_path, url)  # it was paid for: not asked again
    assert len(seen) == paid
    assert metrics["records"]["gold"]["kept"] == metrics["records"]["counterexample"]["kept"] == 0
    rules = {one["rule"]: one["dropped"] for one in metrics["records"]["gold"]["filters"]}
    assert rules["empty"] == 6
    text = "".join(path.read_text() for path in (tmp_path / "run/records").iterdir())
    assert "with butter" not in text


def test_thoughts_are_kept_apart_and_a_cut_answer_is_dropped(tmp_path: Path) -> None:
    def aloud(n: int, body: dict[str, Any]) -> Answer:
        asked = body["messages"][-1]["content"]
        if "Write the corrected answer" in asked:
            return said(teacher(body), reason="length")
        return said(f"<think>secret thought</think>{teacher(body)}")

    with serving(aloud) as (url, seen):
        metrics = generate(tmp_path, url)
    assert metrics["records"]["gold"]["kept"] == 6
    rules = {o["rule"]: o["dropped"] for o in metrics["records"]["failure_trace"]["filters"]}
    assert rules["unfinished"] == 3
    sent = "".join(json.dumps(body) for body, *_ in seen)
    records = "".join(path.read_text() for path in (tmp_path / "run/records").iterdir())
    assert "secret thought" not in sent + records
    assert "secret thought" in (tmp_path / "run/replies.jsonl").read_text()


@pytest.mark.parametrize(
    ("orders", "found"),
    [(("A", "A"), "tie"), (("B", "A"), "rejected"), (("TIE", "B"), "tie"),
     (("A is better", "B"), "unparsed")],
)  # fmt: skip
def test_a_pair_is_kept_only_if_both_orders_prefer_the_chosen(
    tmp_path: Path, orders: tuple[str, str], found: str
) -> None:
    def biased(n: int, body: dict[str, Any]) -> Answer:
        right = teacher(body)
        if right not in ("A", "B"):
            return able(n, body)
        return said(orders[0] if right == "A" else orders[1])

    with serving(biased) as (url, _):
        metrics = generate(tmp_path, url)
    assert metrics["records"]["counterexample"]["kept"] == 0
    dropped = [json.loads(one) for one in (tmp_path / "run/dropped.jsonl").open()]
    reasons = [one["detail"] for one in dropped if one["rule"] == "preference"]
    assert len(reasons) == 3 and all(one.startswith(f"{found}:") for one in reasons)


def test_an_empty_account_stops_the_run_which_goes_on_with_no_answer_paid_twice(
    tmp_path: Path,
) -> None:
    paid: Counter[str] = Counter()
    credit = [20]
    lock = threading.Lock()

    def meter(n: int, body: dict[str, Any]) -> Answer:
        with lock:
            if credit[0] == 0:
                return 402, {"error": {"message": "Insufficient credits"}}, {}
            credit[0] -= 1
            paid[json.dumps(body)] += 1
        return able(n, body)

    with serving(able) as (url, _):
        generate(tmp_path, url, "whole")
    with serving(meter) as (url, _):
        with pytest.raises(CreditSpent, match="add credit and continue"):
            generate(tmp_path, url, "stopped")
        assert len((tmp_path / "stopped/replies.jsonl").read_text().splitlines()) == 20
        credit[0] = 1000
        generate(tmp_path, url, "stopped")
    assert set(paid.values()) == {1}
    assert results(tmp_path / "whole") == results(tmp_path / "stopped")


def test_the_budget_is_never_passed_even_with_requests_side_by_side(tmp_path: Path) -> None:
    # an answer costs 0.001 dollars; the most that one can cost is a token for each byte sent
    def counted(_: int, body: dict[str, Any]) -> Answer:
        time.sleep(0.01)
        return said(teacher(body), (100, 10))

    with serving(counted) as (url, seen):
        with pytest.raises(BudgetSpent, match="raise --budget and continue"):
            generate(tmp_path, url, budget=0.03, teacher={"concurrency": 8})
        assert 3 <= len(seen) <= 30
        stored = len((tmp_path / "run/replies.jsonl").read_text().splitlines())
        assert stored == len(seen)
        generate(tmp_path, url, budget=10.0, teacher={"concurrency": 8})
    bodies = Counter(json.dumps(body) for body, *_ in seen)
    assert set(bodies.values()) == {1}


def test_the_budget_given_last_holds_without_the_flag(tmp_path: Path) -> None:
    from arcs.teachers.command import start

    def server(n: int, body: dict[str, Any]) -> Answer:
        return able(n, body) if n != 3 else (402, {"error": {"message": "no credit"}}, {})

    run = tmp_path / "run"

    def go_on(**flags: float) -> None:
        start(flags, out=None, run=run, as_json=True)

    with serving(server) as (url, seen):
        path = roster(tmp_path, url, concurrency=1)
        with pytest.raises(CreditSpent):  # begun without a budget
            start({"teachers": str(path), **SIZES}, out=run, run=None, as_json=True)
        whole = path.read_text()
        path.write_text(whole.replace("usd_per_million_output", "#"))
        with pytest.raises(UserError, match="have no prices"):
            go_on(budget=9.0)
        path.write_text(whole)
        assert not (run / "paying.json").exists()  # a refused budget does not stay with the run
        for flags in ({"budget": 0.02}, {}):
            with pytest.raises(BudgetSpent, match=r"budget of \$0\.02"):
                go_on(**flags)
        assert len(seen) < 30
    (run / "paying.json").write_text("[]")
    with pytest.raises(UserError, match=r"paying\.json: cannot be read; remove it") as caught:
        go_on()
    assert "\n" not in str(caught.value)


def test_a_refused_request_costs_nothing_of_the_budget(tmp_path: Path) -> None:
    def busy(n: int, body: dict[str, Any]) -> Answer:
        return able(n, body) if n % 2 else (429, {"error": "slow down"}, {})

    # one request may cost some 0.01 dollars at most, and as many are refused as answered
    small = {"gold": 4, "failure_traces": 0, "counterexamples": 0, "boundary": 1, "fresh": 1}
    with serving(busy) as (url, seen):
        metrics = generate(tmp_path, url, budget=0.05, teacher={"concurrency": 1}, **small)
    assert metrics["usd"] == pytest.approx(0.001 * len(seen) / 2) and metrics["failed"] == 0


def test_what_an_unreported_answer_may_have_cost_stays_spent_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    with serving(lambda _, body: said(teacher(body), None)) as (url, seen):
        with pytest.raises(BudgetSpent):
            generate(tmp_path, url, budget=0.05)
        asked = len(seen)
        assert asked > 0
        with pytest.raises(BudgetSpent):
            generate(tmp_path, url, budget=0.05)
        assert len(seen) == asked


def test_a_question_that_an_endpoint_cannot_take_does_not_stop_a_continued_run(
    tmp_path: Path,
) -> None:
    def picky(n: int, body: dict[str, Any]) -> Answer:
        if "Check the first answer" in body["messages"][-1]["content"]:
            return 400, {"error": {"message": "too long"}}, {}
        return able(n, body)

    with serving(picky) as (url, _):
        first = generate(tmp_path, url)
        again = generate(tmp_path, url)
    assert first == again and (first["failed"], first["failed_may_come"]) == (6, 0)
    assert "6 were refused" in said_by(first) and "--run" not in said_by(first)


def test_what_a_time_out_may_have_cost_stays_spent_when_the_run_goes_on(tmp_path: Path) -> None:
    # 0.01 dollars may be spent on a request that the server, for all we know, went on to answer
    with serving(lambda *_: (504, "gone", {})) as (url, seen):
        with pytest.raises(BudgetSpent):
            generate(tmp_path, url, budget=0.05, teacher={"tries": 2, "concurrency": 1})
        asked = len(seen)
        assert asked > 0 and not (tmp_path / "run/replies.jsonl").exists()
        with pytest.raises(BudgetSpent):
            generate(tmp_path, url, budget=0.05, teacher={"tries": 2, "concurrency": 1})
        assert len(seen) == asked


def test_a_key_that_is_revoked_stops_the_run_which_goes_on(tmp_path: Path) -> None:
    revoked = threading.Event()
    revoked.set()

    def server(n: int, body: dict[str, Any]) -> Answer:
        if n >= 10 and revoked.is_set():
            return 401, {"error": {"message": "revoked"}}, {}
        return able(n, body)

    with serving(able) as (url, _):
        generate(tmp_path, url, "whole")
    with serving(server) as (url, seen):
        with pytest.raises(UserError, match=r"HTTP 401 \(.*OPENAI_API_KEY.*are kept"):
            generate(tmp_path, url, "stopped")
        assert len(seen) <= 10 + 3  # those that were under way
        revoked.clear()
        generate(tmp_path, url, "stopped")
    assert results(tmp_path / "whole") == results(tmp_path / "stopped")


def test_a_teacher_may_move_between_sittings_and_may_not_become_another(tmp_path: Path) -> None:
    def dry(n: int, body: dict[str, Any]) -> Answer:
        return able(n, body) if n < 7 else (402, {"error": {"message": "no credit"}}, {})

    with serving(dry) as (url, _), pytest.raises(CreditSpent):
        generate(tmp_path, url)
    with serving(able) as (url, _):  # another port
        for changed, said_of in (({"model": "better"}, "roster.teachers.t.model was"),
                                 ({"extra": 1}, "--teachers")):  # fmt: skip
            with pytest.raises(UserError, match=said_of) as caught:
                generate(tmp_path, url, teacher=changed)
            assert "\n" not in str(caught.value)
        moved = {"concurrency": 1, "key_variables": ["OTHER"], "usd_per_million_output": 1.0}
        generate(tmp_path, url, teacher=moved)
    files = [json.loads(one) for one in (tmp_path / "run/rosters.jsonl").open()]
    assert len(files) == 2 and files[1]["teachers"]["t"]["url"] == url
    replies = [json.loads(one)["roster_sha256"] for one in (tmp_path / "run/replies.jsonl").open()]
    assert replies[:7] == [files[0]["sha256"]] * 7
    assert set(replies[7:]) == {files[1]["sha256"]} and len(replies) > 7
    assert json.loads((tmp_path / "run/metrics.json").read_text())["failed"] == 0


@pytest.mark.parametrize("status", [500, 403])
def test_prompts_that_a_failing_writer_owes_are_asked_for_again(
    tmp_path: Path, status: int
) -> None:
    healthy = threading.Event()
    answered: Counter[str] = Counter()

    def writer(n: int, body: dict[str, Any]) -> Answer:
        asked = body["messages"][-1]["content"]
        if "JSON array" in asked and "sauces" in asked and not healthy.is_set():
            return status, "oops", {}
        answered[json.dumps(body)] += 1
        return able(n, body)

    def go(run: RunDirectory, url: str) -> None:
        path = roster(tmp_path, url, tries=1)
        path.write_text(path.read_text() + 'prompt_writer = "t"\n')
        sizes = {**SIZES, "gold": 12, "failure_traces": 0, "counterexamples": 0}
        config = GenerateConfig(teachers=str(path), **sizes)
        with run:
            run_generate(config, run, Reporter(quiet=True), sleep=lambda _: None)

    out = tmp_path / "run"
    with serving(writer) as (url, _):
        with pytest.raises(UserError, match=r"gold prompts: \d+ are missing.*HTTP \d+.*continue"):
            go(RunDirectory.create(out, {}), url)
        assert not (out / "prompts.jsonl").exists()
        healthy.set()
        go(RunDirectory.resume(out), url)
    found = read_good(out / "prompts.jsonl").records
    assert sum(one.set == "gold" for one in found) == 12
    assert max(answered.values()) == 1


@pytest.mark.parametrize("bad", ["boundary-0001", "fresh-1", "a/b"])
def test_own_prompts_may_not_take_the_ids_that_are_made_here(tmp_path: Path, bad: str) -> None:
    mine = tmp_path / "mine.jsonl"
    rows = [{"id": one, "prompt": f"How long does dish {one} simmer?"} for one in ("a", bad)]
    mine.write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    with pytest.raises(UserError, match=f"--prompts .*id '{bad}'") as caught:
        generate(tmp_path, "http://127.0.0.1:9/v1", prompts=mine, gold=None)
    assert "\n" not in str(caught.value)


def own_prompts(tmp_path: Path, n: int) -> Path:
    mine = tmp_path / "mine.jsonl"
    rows = [{"id": f"p{i}", "prompt": f"How is dish number {i * 977} served at noon?"}
            for i in range(n)]  # fmt: skip
    mine.write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    return mine


@pytest.mark.parametrize(
    ("asked", "said_of"),
    [
        ({"gold": 13}, "--gold 13: .*mine.jsonl gives 12"),
        ({"failure_traces": 13}, "--failure-traces 13: .*mine.jsonl gives 12"),
        ({"counterexamples": 7, "gold": 6}, "--counterexamples 7: .* with --gold gives 6"),
    ],
)
def test_more_records_than_own_prompts_are_refused(
    tmp_path: Path, asked: dict[str, int], said_of: str
) -> None:
    sizes = {"gold": None, "failure_traces": 1, "counterexamples": 1, **asked}
    mine = own_prompts(tmp_path, 12)
    with pytest.raises(UserError, match=said_of) as caught:
        generate(tmp_path, "http://127.0.0.1:9/v1", prompts=mine, **sizes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "found"),
    [({"failure_traces": 10}, (12, 10, 4)), ({"counterexamples": 12}, (12, 4, 12))],
)
def test_own_prompts_are_counted_in_their_file_and_not_in_the_profile(
    tmp_path: Path, asked: dict[str, int], found: tuple[int, int, int]
) -> None:
    mine = own_prompts(tmp_path, 12)
    config = parse({"profile": "quick", "prompts": mine, **asked})  # quick: 8 gold, 4 of each
    made = prompting.Prompts(tuple(prompting._own(config, {"x": "y"})), (), (), ())
    plans = plan(config, made)
    kinds = ("gold", "failure_trace", "counterexample")
    assert tuple(len(plans[kind]) for kind in kinds) == found  # type: ignore[index]
    assert made.to_json(config)["wanted"] == {"gold": 12, "boundary": 4, "fresh": 8}


def test_another_domain_needs_prompts_of_its_own() -> None:
    with pytest.raises(UserError, match=r"^--kind code: .* --prompts$"):
        parse({"kind": "code"})
    assert parse({"kind": "code", "prompts": "mine.jsonl"}).kind == "code"


def test_teachers_at_one_endpoint_share_its_smallest_limit(tmp_path: Path) -> None:
    lock, at_a_time = threading.Lock(), Counter[str]()
    most: Counter[str] = Counter()
    small = {"gold": 6, "failure_traces": 0, "counterexamples": 0, "boundary": 1, "fresh": 1}

    def server(n: int, body: dict[str, Any]) -> Answer:
        model = body["model"]
        with lock:
            at_a_time.update(("all", model))
            for one in ("all", model):
                most[one] = max(most[one], at_a_time[one])
        time.sleep(0.02)
        with lock:
            at_a_time.subtract(("all", model))
        return able(n, body)

    with serving(server) as (url, seen):
        path = roster(tmp_path, url, concurrency=8)
        path.write_text(
            path.read_text().replace("[roles]", '[teachers.other]\nkind = "endpoint"\n'
            f'url = "{url}/"\nmodel = "second"\nlicence = "mit"\nconcurrency = 3\n'
            'own_concurrency = 1\ntemperature = 0.25\n[roles]\ndeliberate = "other"')
        )  # fmt: skip
        config = GenerateConfig(teachers=str(path), **small)
        with RunDirectory.create(tmp_path / "run", {}) as run:
            run_generate(config, run, Reporter(quiet=True), sleep=lambda _: None)
    assert most["all"] <= 3 and most["second"] == 1 <= most["writer"]
    asked_at = {model: {body["temperature"] for body, *_ in seen if body["model"] == model}
                for model in ("writer", "second")}  # fmt: skip
    assert asked_at["second"] == {0.25} and asked_at["writer"] == {0.5, 0.6, 0.7}  # the stages'


def test_one_clock_for_an_account_and_another_for_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "a")
    monkeypatch.setenv("B_KEY", "b")

    def endpoint(key: str, rate: float | None, url: str = "http://H/v1") -> Teacher:
        return Teacher(kind="endpoint", url=url, model="m", licence="mit", key_variables=(key,),
                       concurrency=2, requests_per_minute=rate)  # fmt: skip

    found = allowances(
        {"one": endpoint("A_KEY", 1.0), "two": endpoint("A_KEY", None, "http://h/v1/"),
         "three": endpoint("A_KEY", 30.0), "apart": endpoint("B_KEY", 9.0),
         "ours": Teacher(kind="gguf", model="m", licence="mit")}
    )  # fmt: skip
    assert found["one"] is found["two"] is found["three"] is not found["apart"]
    assert (found["one"].requests_per_minute, found["apart"].requests_per_minute) == (1.0, 9.0)
    waits: list[float] = []
    for name in ("one", "two", "three"):
        with found[name].turn(waits.append):
            pass
    assert [round(seconds / 60) for seconds in waits] == [0, 1, 2] and "ours" not in found


def test_a_pair_has_the_licences_of_both_its_answers(tmp_path: Path) -> None:
    with serving(able) as (url, _):
        path = roster(tmp_path, url)
        path.write_text(
            path.read_text().replace("[roles]", '[teachers.other]\nkind = "endpoint"\n'
            f'url = "{url}"\nmodel = "second"\nlicence = "proprietary"\n[roles]\n'
            'synthesizer = "other"')
        )  # fmt: skip
        config = GenerateConfig(teachers=str(path), **SIZES)
        with RunDirectory.create(tmp_path / "run", {}) as run:
            run_generate(config, run, Reporter(quiet=True), sleep=lambda _: None)
    folder = tmp_path / "run/records"
    (pair, *_) = read_good(folder / "counterexamples.jsonl").records
    assert pair.provenance["licences"] == ["mit", "proprietary"]
    (trace, *_) = read_good(folder / "failure_traces.jsonl").records
    assert trace.provenance["licences"] == ["mit"]


@pytest.mark.parametrize(
    ("given", "changed", "said_of"),
    [
        (("--prompts", "typo.jsonl"), {}, "typo.jsonl"),
        ((), {"url": "ftp://example.org"}, "teachers.t.url ftp://"),
        ((), {"key": "no key"}, "HTTP 401"),
    ],
)
def test_a_mistake_leaves_no_run_behind(
    tmp_path: Path, given: tuple[str, ...], changed: dict[str, Any], said_of: str
) -> None:
    from arcs.teachers.command import start

    out = tmp_path / "run"
    flags: dict[str, Any] = dict(zip([one[2:] for one in given[::2]], given[1::2], strict=True))
    with serving(lambda *_: (401, {"error": {"message": "who?"}}, {})) as (url, seen):
        path = roster(tmp_path, changed.get("url", url))
        if "key" in changed:  # asked before there are prompts
            path.write_text(path.read_text() + 'prompt_writer = "t"\n')
        with pytest.raises(UserError, match=said_of):
            start({"teachers": str(path), **SIZES, **flags}, out=out, run=None, as_json=True)
    assert not out.exists() and bool(seen) == ("key" in changed)


def test_what_was_paid_without_prices_counts_at_todays(tmp_path: Path) -> None:
    def dry(n: int, body: dict[str, Any]) -> Answer:
        return able(n, body) if n < 7 else (402, {"error": {"message": "no credit"}}, {})

    free = {"usd_per_million_input": 0.0}
    with serving(dry) as (url, seen):
        path = roster(tmp_path, url)
        unpriced = "\n".join(one for one in path.read_text().splitlines() if "usd" not in one)
        path.write_text(unpriced)
        config = GenerateConfig(teachers=str(path), **SIZES)
        with RunDirectory.create(tmp_path / "run", {}) as run, pytest.raises(CreditSpent):
            run_generate(config, run, Reporter(quiet=True), sleep=lambda _: None)
        asked = len(seen)
        # 7 answers of 100 tokens at 10 dollars a million: 0.007, and the budget is spent
        with RunDirectory.resume(tmp_path / "run") as run:
            (tmp_path / "run/manifest.json").write_text("{}")
        with pytest.raises(BudgetSpent, match=r"\(\$0.0070, and"):
            generate(tmp_path, url, budget=0.0071)
        assert len(seen) == asked
        lines = (tmp_path / "run/replies.jsonl").read_text()
        (tmp_path / "run/replies.jsonl").write_text(
            lines.replace('"input_tokens": 100', '"input_tokens": null')
        )
        with pytest.raises(UserError, match=r"--budget: t answered .* not report its tokens"):
            generate(tmp_path, url, budget=1.0, teacher=free)


def test_a_key_that_may_no_longer_ask_stops_the_run_and_one_flagged_prompt_does_not(
    tmp_path: Path,
) -> None:
    forbidden = (403, {"error": {"message": "not allowed"}}, {})
    sick = threading.Event()
    sick.set()

    def flagged(n: int, body: dict[str, Any]) -> Answer:
        if "Check the first answer" in body["messages"][-1]["content"]:
            return forbidden if seen_flagged.pop() else able(n, body)
        return able(n, body)

    def lost(n: int, body: dict[str, Any]) -> Answer:
        return forbidden if n >= 10 and sick.is_set() else able(n, body)

    small = {"gold": 5, "failure_traces": 0, "counterexamples": 0, "boundary": 1, "fresh": 1}
    seen_flagged = [False] * 9 + [True]
    with serving(flagged) as (url, _):
        assert generate(tmp_path, url, "whole", **small)["failed"] == 1
        assert generate(tmp_path, url, "whole", **small)["failed"] == 0  # asked again
    with serving(lost) as (url, seen):
        with pytest.raises(UserError, match=r"HTTP 403 \(.*OPENAI_API_KEY.*are kept"):
            generate(tmp_path, url, "stopped", **small)
        assert len(seen) <= 10 + 5 + 3
        sick.clear()
        generate(tmp_path, url, "stopped", **small)
    assert results(tmp_path / "whole") == results(tmp_path / "stopped")


@pytest.mark.parametrize(
    ("why", "paid"),
    [
        ("ConnectError", False), ("ConnectTimeout", False), ("PoolTimeout", False),
        ("ReadTimeout", True), ("WriteTimeout", True), ("ReadError", True),
        ("RemoteProtocolError", True),
    ],
)  # fmt: skip
def test_a_request_that_never_left_costs_nothing(why: str, paid: bool) -> None:
    import httpx
    import openai

    def fail(request: httpx.Request) -> httpx.Response:
        raise getattr(httpx, why)("no", request=request)

    purse = Purse(1.0, 0.0)
    made = EndpointSettings(
        "http://h/v1", "m", tries=1, usd_per_million_input=1.0, usd_per_million_output=1.0
    )
    endpoint = Endpoint(made, purse=purse)
    endpoint._client = openai.OpenAI(
        base_url="http://h/v1", api_key="k", max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(fail)),
    )  # fmt: skip
    with pytest.raises(Failed):
        endpoint.ask([Message("user", "x")], threading.Event(), max_tokens=10)
    assert (purse.spent > 0) is paid


def test_a_budget_needs_prices(tmp_path: Path) -> None:
    path = roster(tmp_path, "http://127.0.0.1:9/v1")
    kept = [one for one in path.read_text().splitlines() if "usd" not in one]
    path.write_text("\n".join(kept))
    config = GenerateConfig(teachers=str(path), budget=1.0)
    with (
        RunDirectory.create(tmp_path / "run", {}) as run,
        pytest.raises(UserError, match=r"t have no prices.*usd_per_million_output"),
    ):
        run_generate(config, run, Reporter(quiet=True))


def test_the_papers_teachers_keep_a_budget_once_a_copy_has_prices(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        checked(parse({"teachers": "paper", "budget": 1.0}))
    said = str(caught.value)
    unpriced = ("qwen3_6-plus", "gemma-4-26b-a4b", "glm-5")
    assert f"{', '.join(unpriced)} have no prices" in said and "kimi" not in said
    assert str(PRESETS["paper"]) in said and "for --teachers" in said and "\n" not in said
    text = PRESETS["paper"].read_text()
    for name in unpriced:
        quoted = name if name == "glm-5" else f'"{name}"'
        head = f"[teachers.{quoted}]\n"
        assert head in text
        prices = "usd_per_million_input = 1\nusd_per_million_output = 2\n"
        text = text.replace(head, head + prices)
    copy = tmp_path / "copy.toml"
    copy.write_text(text)
    roster, _ = checked(parse({"teachers": str(copy), "budget": 1.0}))
    kimi = roster.teachers["kimi-k2_5"]  # PAPER.md 2.1: thoughts off, one temperature
    assert kimi.heat(0.9) == 0.6 and kimi.extra == {"thinking": {"type": "disabled"}}
    assert kimi.limit(768) == 768


def test_a_teacher_writes_prompts_and_another_the_fresh_ones(tmp_path: Path) -> None:
    def writer(n: int, body: dict[str, Any]) -> Answer:
        asked = body["messages"][-1]["content"]
        text = teacher(body)
        if "JSON array" not in asked:
            return able(n, body)
        if "sauces" in asked and "(easy:" in asked and "easy" in asked:
            return said("Sure! Here they are:\n```json\n" + text + "\n```")
        return said(text)

    with serving(writer) as (url, seen):
        path = roster(tmp_path, url)
        path.write_text(
            path.read_text().replace("[roles]", '[teachers.other]\nkind = "endpoint"\n'
            f'url = "{url}"\nmodel = "second"\nlicence = "mit"\n[roles]\n'
            'prompt_writer = "t"\nfresh_writer = "other"')
        )  # fmt: skip
        config = GenerateConfig(teachers=str(path), **SIZES)
        with RunDirectory.create(tmp_path / "run", {}) as run:
            metrics = run_generate(config, run, Reporter(quiet=True), sleep=lambda _: None)
    prompts = metrics["prompts"]
    assert prompts["found"] == {"gold": 6, "boundary": 3, "fresh": 3}
    assert prompts["generators"] == ["writer"] and prompts["fresh_generators"] == ["second"]
    assert prompts["generator_not_independent"] is False
    asked = [body["messages"][-1]["content"] for body, *_ in seen]
    first_answer = next(i for i, one in enumerate(asked) if "JSON array" not in one)
    assert not any("JSON array" in one for one in asked[first_answer:])  # prompts come first


@pytest.mark.slow
def test_kill_9_and_going_on_give_the_same_files_and_no_answer_twice(tmp_path: Path) -> None:
    answered: list[str] = []
    hold, held = threading.Event(), threading.Event()

    def held_at_15(n: int, body: dict[str, Any]) -> Answer:
        if n == 15 and not hold.is_set():
            held.set()
            hold.wait(60)
            return 500, "killed meanwhile", {}
        answered.append(json.dumps(body))
        return able(n, body)

    small = {"gold": 5, "failure_traces": 2, "counterexamples": 2, "boundary": 1, "fresh": 1}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in small.items()]
    command = [sys.executable, "-c", "from arcs.cli import main; main()", "data", "generate"]
    out = tmp_path / "killed"
    with serving(held_at_15) as (url, _):
        file = roster(tmp_path, url, concurrency=1)
        begun = subprocess.Popen(
            [*command, "--teachers", str(file), "--out", str(out), *flags],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert held.wait(120), "the run did not get to its 16th question"
        begun.send_signal(signal.SIGKILL)
        begun.wait()
        hold.set()
        assert not (out / "metrics.json").exists()
        with (out / "replies.jsonl").open("ab") as torn:
            torn.write(b'{"job": "gold-0001/ea')
        done = subprocess.run(
            [*command, "--run", str(out), "--json"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert max(Counter(answered).values()) == 1
    with serving(able) as (url, _):
        roster(tmp_path, url, concurrency=1)
        whole = subprocess.run(
            [*command, "--teachers", str(file), "--out", str(tmp_path / "whole"), *flags],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    assert results(out) == results(tmp_path / "whole")
    assert json.loads(done.stdout) == json.loads((out / "metrics.json").read_text())


def test_a_generated_folder_is_checked_as_a_whole(tmp_path: Path) -> None:
    with serving(able) as (url, _):
        generate(tmp_path, url, require_licence="mit")
    run = tmp_path / "run"
    assert is_generated(run) and list(problems_of(run)) == []
    assert {one.name for one in files_of(run)} >= {"prompts.jsonl", "gold.jsonl", "boundary.jsonl"}
    gold = run / "records/gold.jsonl"
    lines = gold.read_text().splitlines()
    first = json.loads(lines[0])
    first["split"] = "train" if first.get("split") == "held_out" else "held_out"
    second = json.loads(lines[1])
    second["provenance"]["licences"] = ["proprietary"]
    third = {**json.loads(lines[2]), "prompt": "Another question, about nothing?"}
    gold.write_text("".join(f"{json.dumps(one)}\n" for one in (first, second, third)))
    said = [str(one) for one in problems_of(run)]
    for number, what in enumerate(("its prompt in", "licence proprietary, and the run required mit",
                                   "its prompt is not the text of"), start=1):  # fmt: skip
        assert any(f"line {number}:" in one and what in one for one in said), what
    assert any("changed since it was written" in one for one in said) and len(said) == 4
    # a damaged file of dropped records is a problem of its own lines, and those before it are read
    row = json.dumps({"id": second["id"]}).encode()
    (run / "dropped.jsonl").write_bytes(row + b'\n{"kind": "gold"}\n{"id": "a\n[1]\n"\xff"\n')
    said = [str(one) for one in problems_of(run)]
    bad = [one for one in said if "no dropped record" in one]
    assert [number for number in range(1, 6) if any(f"line {number}:" in one for one in bad)] == [
        2, 3, 4, 5,
    ]  # fmt: skip
    assert sum("is among dropped.jsonl as well" in one for one in said) == 1


@pytest.mark.parametrize("kind", ["gguf", "backend"])
def test_a_teacher_may_be_a_model_of_ours_and_says_the_same_again(
    tmp_path: Path, tiny_directory: Callable[..., Any], kind: str
) -> None:
    pytest.importorskip("llama_cpp" if kind == "gguf" else "torch")
    how = 'quant = "f16"\nthreads = 1' if kind == "gguf" else 'backend = "torch"'
    directory = tiny_directory("llama", max_position_embeddings=4096)
    path = tmp_path / "teachers.toml"
    path.write_text(
        f'[teachers.tiny]\nkind = "{kind}"\nmodel = "{directory.path}"\n{how}\n'
        'licence = "mit"\nmax_tokens = 8\n[roles]\ndefault = "tiny"\n'
    )
    found = []
    for out in ("a", "b"):
        config = GenerateConfig(teachers=str(path), gold=4, failure_traces=2, counterexamples=2,
                                boundary=1, fresh=1)  # fmt: skip
        with RunDirectory.create(tmp_path / out, {}) as run:
            metrics = run_generate(config, run, Reporter(quiet=True))
        found.append(results(tmp_path / out))
        manifest = json.loads((tmp_path / out / "manifest.json").read_text())
        identity = manifest["teacher.tiny"]
        assert identity["fingerprint"] == directory.fingerprint
        assert identity.get("quant", identity.get("dtype")) in ("f16", "float32")
    # random weights say nothing in eight tokens that a filter would let through
    assert all(one["kept"] == 0 for one in metrics["records"].values())
    assert metrics["teachers"]["tiny"]["answers"] >= 4 * 4
    assert found[0] == found[1]


@pytest.mark.parametrize("which", ["tiny", pytest.param("embedded", marks=pytest.mark.slow)])
def test_a_model_of_ours_behind_http_answers_as_it_does_in_this_process(
    tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("llama_cpp")
    if which == "tiny":
        make = request.getfixturevalue("tiny_directory")
        directory = make("llama", max_position_embeddings=4096)
    else:
        directory = request.getfixturevalue("smollm_directory")
    settings = Teacher(kind="gguf", model="m", licence="mit", quant="f16", threads=1)
    one_at_a_time = threading.Lock()
    with opened_gguf(settings, directory, print) as opened:
        engine = EngineTeacher(settings, lambda: opened, seed=0)

        def ask(n: int, body: dict[str, Any]) -> Any:
            messages = tuple(Message(one["role"], one["content"]) for one in body["messages"])
            question = Question(f"http/{n}", messages, 0.0, min(12, body["max_tokens"]))
            found: list[Any] = []
            with one_at_a_time:
                engine.answer([question], lambda _, a: found.append(a), lambda *_: None,
                              threading.Event())  # fmt: skip
            return found[0]

        def served(n: int, body: dict[str, Any]) -> Answer:
            answer = ask(n, body)
            return said(answer.text, (answer.input_tokens, answer.output_tokens),
                        reason=answer.finish_reason)  # fmt: skip

        with serving(served) as (url, seen):
            metrics = generate(tmp_path, url, gold=4, failure_traces=2, counterexamples=1,
                               boundary=1, fresh=1,
                               teacher={"concurrency": 2, "timeout": 60.0})  # fmt: skip
        lines = [json.loads(one) for one in (tmp_path / "run/replies.jsonl").open()]
        stored = {one["answer"]["text"] for one in lines}
        assert {ask(1000 + i, body).text for i, (body, *_) in enumerate(seen)} == stored
    assert metrics["teachers"]["t"]["answers"] == len(seen) == len(lines)
    # twelve tokens end nowhere: nothing of it may pass for a record
    assert all(one["kept"] == 0 for one in metrics["records"].values())
