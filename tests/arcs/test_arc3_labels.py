"""Arc 3 whole, on labels that are no exact match: executed code, and a judge's checklist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arcs.arc3 import command
from arcs.arc3.questions import Question
from arcs.arc3.report import report
from arcs.judging.opening import JudgeOptions
from arcs.report.kinds import view_of
from models.errors import UserError
from tests.support.arc3_bench import SMALL, written_run
from tests.support.chat_server import said, serving
from tests.support.printed import printed
from tests.support.report_links import check_counts

LIMIT, N_PREDICT = 24, 32


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evals.probing.probes.MLP_ITERATIONS", 10)
        patch.setattr("arcs.arc3.sidecar.TRIES", 2)
        sizes = replace(SMALL, cv_seeds=1, permutations=19, oracle_permutations=50)
        patch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: sizes))
        yield


def code(question: Question, right: bool) -> str:
    body = question.record.canonical_solution if right else "    return None\n"
    return f"```python\n{question.record.prompt}{body}```"


class Judge:
    """Reads the claim's very words; fails on one reference as long as it is out of order."""

    def __init__(self) -> None:
        self.out_of_order = True

    def __call__(self, _: int, body: dict[str, Any]) -> Any:
        prompt = body["messages"][-1]["content"]
        if self.out_of_order and "Has anyone found the cause of that flaky test?" in prompt:
            return 500, {"error": {"message": "out of order"}}, {}
        if "----- claim -----" not in prompt:
            return said("ASSERT")
        _, _, texts = prompt.partition("----- answer -----\n")
        answer, _, claim = texts.partition("----- claim -----\n")
        return said("YES" if claim.partition("\n-----")[0] in answer else "NO")


def states(question: Question, right: bool) -> str:
    claims = question.record.checklist
    return " ".join(one.claim for one in claims[: 2 if right else 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "items", "says", "file"),
    [
        ("execution", "small-tasks", code, "executions.jsonl"),
        ("judge:api", "chef", states, "labels.jsonl"),
    ],
)
def test_other_labels_run_resume_and_report(
    tiny_directory: Any, tmp_path: Path, capsys: Any, labels: str, items: str, says: Any,
    file: str,
) -> None:  # fmt: skip
    judge, options = Judge(), None
    with ExitStack() as stack:
        if labels == "judge:api":
            pytest.importorskip("openai")
            url, _ = stack.enter_context(serving(judge))
            labels, options = f"judge:api:{url}#m", JudgeOptions(tries=1)
        _run_resume_and_report(
            tiny_directory, tmp_path, capsys, labels, items, says, file, judge, options
        )


def _require_transcripts(out: Path, items: str) -> None:
    """Every number of the page leads to what it counts; code and labels stand at the answers."""
    view = view_of(out)
    assert check_counts(view) >= 30
    blocks = [block for item in view.items for block in item.answers[0].states[0].blocks]
    if items == "small-tasks":
        assert any(block.kind == "code" and "def " in block.text for block in blocks)
        assert any(block.title == "what running it gave" for block in blocks)
    else:
        assert any("on delivery" in block.title for block in blocks)
    assert all(item.prompt and item.blocks for item in view.items)


def _run_resume_and_report(
    tiny_directory: Any, tmp_path: Path, capsys: Any, labels: str, items: str, says: Any,
    file: str, judge: Judge, options: JudgeOptions | None,
) -> None:  # fmt: skip
    directory = tiny_directory("llama")
    answers = written_run(
        tmp_path / "answers", directory, limit=LIMIT, items=items, n_predict=N_PREDICT, says=says
    )
    flags = {
        "model": directory.source, "backend": "torch", "profile": "quick", "limit": LIMIT,
        "labels": labels, "items": items, "n_predict": N_PREDICT, "ids_from": answers,
    }  # fmt: skip
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))
        command.start(flags, out=out, run=None, as_json=True, options=options)
        if labels.startswith("judge:"):
            # a reference had no label: it is asked again, and the manifest knows nothing of it
            first = json.loads((out / "metrics.json").read_text())["made_with"]["labels"]
            assert first["validity"]["delivery"]["statuses"]["error"] == 1
            assert not (out / "judge.json").exists()
            judge.out_of_order = False
            capsys.readouterr()
            command.start({}, out=None, run=out, as_json=True, options=options)
            told = json.loads((out / "manifest.json").read_text())
            assert told["labels"]["judge"]["kind"] == "api" and "delivery" not in told
            assert told["labels"].keys() == {"labels", "judge", "cut"}
            phases = json.loads((out / "timing.json").read_text())["phases"]
            assert phases["judge"]["counts"]["input_tokens"] > 0  # what was paid
            assert (out / "judge.json").is_file()
        shown = capsys.readouterr().out
        before = (out / "metrics.json").read_bytes()
        assert shown.encode() == before
        metrics = json.loads(before)
        wanted = [place % 7 in (0, 2, 3) for place in range(2 * LIMIT)]
        for name, half in (("train", wanted[:LIMIT]), ("fresh", wanted[LIMIT:])):
            one = metrics["sets"][name]
            assert one["labels"]["missing"] == 0 and one["used"] == LIMIT
            assert one["right"] == sum(half)
        assert metrics["made_with"]["labels"]["labels"] == labels
        assert metrics["probes"] and metrics["controls"]["planted"]
        text = " ".join(printed(report(metrics, out)).split())
        assert f"{items} labelled by {labels[:10]}" in text and "Verdict" in text
        assert (out / "report.html").is_file()
        _require_transcripts(out, items)
        told = json.loads((out / "sidecar" / "sidecar.json").read_text())
        assert ("```python" in told["prefix"]) == (items == "small-tasks")
        # killed in the middle of labelling: what was labelled stays, the outcome is the same
        rows = (out / file).read_bytes()
        (out / file).write_bytes(rows[: len(rows) // 2])
        parts = (out / "analysis.jsonl").read_bytes()
        for made in ("metrics.json", "labels.json"):
            (out / made).unlink()
        command.start({}, out=None, run=out, as_json=True, options=options)
        assert (out / "metrics.json").read_bytes() == before
        assert (out / "analysis.jsonl").read_bytes() == parts  # nothing was fitted again
        assert sorted((out / file).read_bytes().splitlines()) == sorted(rows.splitlines())


@pytest.mark.parametrize(
    ("flags", "options", "said"),
    [
        ({}, JudgeOptions(budget_usd=1.0), "^--judge-budget-usd: labels by exact-match have no"),
        ({"labels": "execution"}, JudgeOptions(tries=2), "^--judge-tries: labels by execution"),
        (
            {"labels": "judge:lexical"},
            JudgeOptions(requests_per_minute=9),
            "^--judge-requests-per-minute means nothing to a lexical judge",
        ),
        ({"labels": "judge:recorded:none.jsonl"}, JudgeOptions(), "none.jsonl"),
    ],
)
def test_options_that_no_judge_hears_are_one_line_before_any_work(
    tmp_path: Path, flags: dict[str, Any], options: JudgeOptions, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        command.start(flags, out=tmp_path / "run", run=None, as_json=True, options=options)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_recorded_labels_are_found_from_wherever_a_run_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is relative to where it was given."""
    (tmp_path / "labels.jsonl").write_text("")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    given = command.parse(command._absolute({"labels": "judge:recorded:labels.jsonl"}))
    run = tmp_path / "run"
    run.mkdir()
    stored = {"arc": "arc3", "config": given.model_dump(mode="json")}
    (run / "manifest.json").write_text(json.dumps(stored))
    monkeypatch.chdir(elsewhere)
    source = command._settings_of(run, {}).source
    assert source.judge is not None and source.judge.file == tmp_path / "labels.jsonl"
    again = {"labels": "judge:recorded:../labels.jsonl"}
    assert command._settings_of(run, again).labels == given.labels
    with pytest.raises(UserError, match=r"--labels is judge:recorded:.*labels.jsonl in this run"):
        command._settings_of(run, {"labels": "judge:recorded:labels.jsonl"})
