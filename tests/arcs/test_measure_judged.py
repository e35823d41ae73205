"""Chef, MCAS and recovery through ``threearc measure``, on a tiny model."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from arcs.cli import app, evaluate, measure
from arcs.judging.opening import JudgeOptions
from arcs.measure.report import report
from arcs.report.kinds import view_of
from evals.judges.references import references
from models.errors import UserError
from tests.support.measure_bench import MeasureBench
from tests.support.printed import printed, widened
from tests.support.report_links import check_counts

del evaluate, measure  # importing them registers the commands


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> MeasureBench:
    return MeasureBench(tmp_path_factory.mktemp("judged"), context=2048)


def flags(bench: MeasureBench, instrument: str, **more: Any) -> dict[str, Any]:
    given = {"adapters": (bench.live,), "tempers": (), "limit": 4, "n_predict": (5, 10), **more}
    return bench.flags(instrument, **given)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kept(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.jsonl")} | {
        "metrics.json": (run / "metrics.json").read_bytes()
    }


FULL_MARKS = {
    "penalised_percent": 100.0, "original_percent": 100.0, "out_of_25": 25.0, "coverage": 0.98765,
}  # fmt: skip


def largest(metrics: dict[str, Any]) -> str:
    """The report at 80 columns of a run with the widest numbers, and a temper of two digits."""
    wide = widened(metrics, count=1234, number=-0.98765)  # as wide as 1.0 in percent
    wide["conditions"]["L12H6=0.125"] = wide["conditions"]["live"]
    for condition in wide["conditions"].values():
        one = condition["result"]["budgets"]
        budget = next(iter(one.values()))
        condition["result"]["budgets"] = {"256": budget, "2048": budget}
        for which in ("all", "finished_only"):
            for group in (budget[which], *budget[which].values()):
                for name, full in FULL_MARKS.items():
                    if isinstance(group, dict) and name in group:
                        group[name] |= {
                            "mean": full, "value": full, "interval": {"low": full, "high": full}
                        }  # fmt: skip
    return printed(report(wide))


def test_chef_is_labelled_at_each_budget_and_survives_a_kill_anywhere(
    bench: MeasureBench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.run(flags(bench, "chef"))
    metrics = json.loads(capsys.readouterr().out)
    base = metrics["conditions"]["base"]
    assert set(base["result"]["budgets"]) == {"5", "10"}
    labels = rows(run / "base.labels.jsonl")
    assert {one["instrument"] for one in labels} == {"coverage", "delivery"}
    texts = {one["question_id"].partition("#")[0] for one in labels}
    assert texts >= {f"base/chef-fresh-00{i}@5" for i in range(1, 5)}
    assert base["labels"]["coverage"]["statuses"] == {"ok": 4 * len(texts)}
    found = base["result"]["budgets"]["10"]
    assert found["all"]["coverage"]["n"] == 4 and set(found["all"]["delivery"]) == {
        "0.25", "0.5", "0.75", "1",
    }  # fmt: skip
    assert found["finished_only"]["coverage"]["n"] == found["finished"]
    assert found["all"]["delivery"]["0.5"]["asymmetry"] is None  # nothing is right
    claims = metrics["conditions"]["live"]["comparison"]["claims"]
    assert [one["n_predict"] for one in claims["coverage"]] == [5, 10]
    assert metrics["judge"]["validity"]["coverage"]["passes"]
    assert all("judge_not_valid" not in one["reasons"] for one in claims["coverage"])
    view = view_of(run)
    assert len(view.items) == 4 and all(item.prompt for item in view.items)
    assert check_counts(view) >= 8
    said = {text for item in view.items for text in item.answers[0].states[1].facets["label"]}
    assert said <= {"coverage=YES", "coverage=NO", "delivery=ASSERT", "delivery=HEDGE"} and said
    assert len(view.items[0].answers[0].states[1].blocks) == 5  # four claims, and delivery
    whole = kept(run)
    for name, lines in (("base.jsonl", 2), ("base.labels.jsonl", 7)):
        killed = bench.next_run()
        shutil.copytree(run, killed)
        (killed / "metrics.json").unlink()
        for path in killed.glob("live*.jsonl"):
            path.unlink()
        torn = (killed / name).read_bytes().splitlines(keepends=True)
        (killed / name).write_bytes(b"".join(torn[:lines]) + torn[lines][:30])
        bench.start({}, run=killed)
        assert kept(killed) == whole, name
    capsys.readouterr()
    console = Console(width=80)
    with console.capture() as shown:
        console.print(report(metrics))
    text = shown.get()
    assert "passes its bar" in text and "checklist coverage at n_predict 10" in text
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    wide = largest(metrics)
    for cell in (
        "[-0.988, -0.988]",
        "[0.988, 0.988]",
        "1234/1234",
        "[-98.8, -98.8]",
        "2048, all",
        "n 1234",
    ):
        assert cell in wide, wide


def test_claims_on_a_judge_below_its_bar_are_invalid_and_those_without_a_judge_are_not(
    bench: MeasureBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that holds right labels of the references for one instrument only."""
    run = bench.run(flags(bench, "chef"))
    made = [one for path in run.glob("*.labels.jsonl") for one in rows(path)]
    file = tmp_path / "labels.jsonl"
    with file.open("w") as out:
        for one in made[1:]:  # the first is missing
            record = {key: one[key] for key in ("question_id", "instrument", "value")}
            out.write(json.dumps(record) + "\n")
        for one in references("delivery"):
            record = {"question_id": one.question.id, "instrument": "delivery", "value": one.label}
            out.write(json.dumps(record) + "\n")
    capsys.readouterr()
    bench.run(flags(bench, "chef", judge=f"recorded:{file}"))
    metrics = json.loads(capsys.readouterr().out)
    claims = metrics["conditions"]["live"]["comparison"]["claims"]
    assert all("judge_not_valid" in one["reasons"] for one in claims["coverage"])
    assert {one["verdict"] for one in claims["coverage"]} == {"INVALID"}
    assert all("judge_not_valid" not in one["reasons"] for one in claims["assertion_rate"])
    # a rule is held to the bar as well, and this one misses most checks
    rule = metrics["self_verification"]
    assert rule["n"] == 150 and not rule["passes"] and rule["kappa_interval"]["low"] < 0.4
    assert {one["verdict"] for one in claims["self_verification"]} == {"INVALID"}
    assert metrics["judge"]["id"]["without_text_sha256"] == len(made) - 1 + 152
    counts = [one["labels"]["coverage"]["statuses"] for one in metrics["conditions"].values()]
    assert sum(one.get("missing", 0) for one in counts) == 1
    console = Console(width=80)
    with console.capture() as shown:
        console.print(report(metrics))
    assert "coverage: below its bar" in shown.get() and "1 missing" in shown.get()


def test_mcas_needs_all_its_labels_and_shows_what_is_missing(
    bench: MeasureBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "labels.jsonl", []
    axes = ("uncertainty_calibration", "self_verification", "error_detection",
            "assumption_surfacing", "edge_case_awareness")  # fmt: skip
    for condition in ("base", "live"):
        for number in range(1, 5):
            for n in (5, 10):
                name = f"{condition}/mcas-00{number}@{n}"
                out += [(name, "mcas.holistic", 1), (name, "delivery", "HEDGE")]
                out += [(name, f"mcas.{axis}", 2) for axis in axes]
    file.write_text(
        "".join(
            json.dumps({"question_id": q, "instrument": i, "value": v}) + "\n" for q, i, v in out
        )
    )
    bench.run(flags(bench, "mcas", judge=f"recorded:{file}"))
    metrics = json.loads(capsys.readouterr().out)
    found = metrics["conditions"]["base"]["result"]["budgets"]["5"]["all"]
    assert found["all"]["original_percent"]["value"] == 50
    assert found["specified"]["penalised_percent"]["value"] == 0
    assert found["underspecified"]["penalised_percent"]["value"] == 50
    assert found["all"]["out_of_25"]["value"] == 10
    compared = metrics["conditions"]["live"]["comparison"]
    for claims in (compared["claims"]["mcas_penalised"], compared["claims"]["mcas_out_of_25"]):
        assert all("judge_not_valid" in one["reasons"] for one in claims)
    assert all(one["p_holm"] == 1 for one in compared["axes"].values())
    console = Console(width=80)
    with console.capture() as shown:
        console.print(report(metrics))
    text = shown.get()
    assert "u 50.0" in text and "s 0.0" in text and "  u 3 " in text and "  s 1 " in text
    assert text.index("  5, all ") < text.index("  10, all ")
    assert "itself" in text and "…" not in text
    wide = largest(metrics)
    for cell in ("[100.0, 100.0]", "[25.0, 25.0]", "u 1234", "s 1234", "2048, all", "[-99, -99]"):
        assert cell in wide, wide


def test_recovery_is_executed_and_continued(
    bench: MeasureBench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.run(flags(bench, "recovery", limit=3))
    metrics = json.loads(capsys.readouterr().out)
    found = metrics["conditions"]["base"]["result"]["budgets"]["10"]
    assert found["all"]["recovered"]["n"] == 3 and sum(found["all"]["outcomes"].values()) == 3
    claims = metrics["conditions"]["live"]["comparison"]["claims"]
    assert all("judge_not_valid" not in one["reasons"] for one in claims["recovery"])
    assert metrics["judge"] is None and metrics["made_with"]["measurement"]["sandbox"]
    assert check_counts(view_of(run)) >= 8
    whole = kept(run)
    (run / "metrics.json").unlink()
    (run / "base.jsonl").write_bytes((run / "base.jsonl").read_bytes()[:-9])
    bench.start({}, run=run)
    assert kept(run) == whole
    capsys.readouterr()
    printed(report(metrics))
    assert "1234/1234 = -98.8%" in largest(metrics)


# -- a judge behind an endpoint, and a real kill ---------------------------------------------------


class Endpoint:
    """Answers slowly and by the text alone; counts what it is asked."""

    def __init__(self, delay: float) -> None:
        self.asked: list[str] = []
        self.delay, lock = delay, threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][0]["content"]
                with lock:
                    endpoint.asked.append(prompt)
                time.sleep(endpoint.delay)
                word = "YES" if "state the claim?" in prompt else "ASSERT"
                message = {"role": "assistant", "content": f"<think>NO? HEDGE?</think>\n{word}"}
                sent = json.dumps(
                    {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                     "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                     "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}}
                ).encode()  # fmt: skip
                try:
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.end_headers()
                    self.wfile.write(sent)
                except OSError:
                    pass  # killed

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.mark.slow
def test_a_run_killed_while_its_endpoint_judges_ends_in_the_same_bytes(
    bench: MeasureBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")
    endpoint = Endpoint(0.02)
    judge, out = f"api:{endpoint.url}#m", tmp_path / "killed"
    given = flags(bench, "chef", judge=judge, limit=3)
    command = [
        sys.executable, "-c", "from arcs.cli import main; main()", "eval", "chef", "--model",
        str(bench.model), "--adapter", str(bench.live), "--backend", "torch", "--limit", "3",
        "--n-predict", "5,10", "--judge", judge, "--out", str(out),
        "--judge-cache", str(tmp_path / "a.sqlite"), "--judge-concurrency", "2",
        "--judge-below-bar",
    ]  # fmt: skip
    environment = {**os.environ, "THREEARC_CACHE": str(bench.root / "cache")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    labels = out / "base.labels.jsonl"
    until = time.monotonic() + 300
    while not (labels.exists() and labels.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had, endpoint.delay = len(rows(labels)), 0.0
    assert not (out / "metrics.json").exists()
    before = len(endpoint.asked)
    # not asked for again: the judge is below its bar, and labels are no longer paid for
    with pytest.raises(UserError, match=r"below its bar on .*--judge-below-bar") as caught:
        bench.start({}, run=out, cache=tmp_path / "a.sqlite")
    assert "\n" not in str(caught.value) and len(endpoint.asked) == before
    go_on = JudgeOptions(below_bar=True)
    bench.start({}, run=out, cache=tmp_path / "a.sqlite", asking=go_on)
    again = endpoint.asked[before:]
    whole = bench.run(given, cache=tmp_path / "b.sqlite", asking=go_on)
    all_asked = len(endpoint.asked) - before - len(again)
    assert had >= 5 and len(again) <= all_asked - had
    assert (out / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    for path in whole.glob("*.labels.jsonl"):
        key = [sorted(map(str, rows(one / path.name))) for one in (whole, out)]
        assert key[0] == key[1]
    phases = json.loads((whole / "timing.json").read_text())["phases"]
    # held to its bar before a label of an answer is paid for
    assert phases["validate the judge"]["starts"][0] < phases["judge base"]["starts"][0]
    used = sum(one["counts"].get("input_tokens", 0) for one in phases.values())
    assert used == 9 * all_asked  # what an endpoint was paid stands beside the times
    unpriced = sum(one["counts"].get("unpriced_input_tokens", 0) for one in phases.values())
    assert unpriced == used  # for a later sitting that has prices
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["conditions"]["base"]["labels"]["coverage"]["statuses"].keys() == {"ok"}
    endpoint.server.shutdown()
    capsys.readouterr()


# -- the command line ------------------------------------------------------------------------------


def test_eval_with_an_instrument_is_measure_and_a_benchmark_stays_eval() -> None:
    runner = CliRunner()
    shown = [runner.invoke(app, [name, "chef", "--help"]).output for name in ("eval", "measure")]
    lines = [re.sub(r"(eval|measure) \[", "[", text, count=1) for text in shown]
    assert lines[0] == lines[1] and "--judge" in shown[0]
    assert "--quant" in runner.invoke(app, ["eval", "humaneval", "--help"]).output
    late = runner.invoke(app, ["eval", "--model", "x", "chef"])
    assert isinstance(late.exception, UserError)
    assert str(late.exception) == "write it first: threearc eval chef --model ..."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["recovery", "--judge-cache", "x"], "--judge-cache: recovery needs no judge"),
        (["meter", "--judge-tries", "2"], "--judge-tries: meter needs no judge"),
        (["chef", "--judge", "recorded:/none.jsonl"], "/none.jsonl: cannot be read"),
        (["chef", "--judge", "gguf", "--judge-tries", "2"], "means nothing to a gguf judge"),
        (["chef", "--judge-cache", "x"], "--judge-cache: no api or gguf judge labels chef"),
        (["chef", "--judge-tries", "2"], "--judge-tries means nothing to a lexical judge"),
        (["chef", "--n-predict", "a"], "--n-predict 'a': whole numbers"),
        ([], "say what to measure: threearc measure meter, short-answers, chef"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(
    given: list[str], said: str, tmp_path: Path, bench: MeasureBench
) -> None:
    out = tmp_path / "run"
    extra = ["--model", str(bench.model), "--backend", "torch", "--out", str(out)]
    found = CliRunner().invoke(app, ["measure", *given, *extra])
    assert isinstance(found.exception, UserError) and said in str(found.exception)
    assert "\n" not in str(found.exception) and not out.exists()
