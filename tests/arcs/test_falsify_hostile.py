"""What a hostile reader tries: order, missing data, repeats, few items, options chosen late."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.claims import ReasonCode, Verdict
from arcs.falsification import command, steps
from arcs.falsification.config import parse
from arcs.falsification.evidence import Evidence, repeated
from arcs.falsification.finished_run import FinishedRun
from arcs.falsification.own import Files, Own
from arcs.falsification.protocol import declaration
from arcs.falsification.registration import registered
from arcs.falsification.report import report
from arcs.falsification.verdict import claims_of
from arcs.gates import DEFAULT_GATES, load_gates
from evals.statistics.auc import FEW, delong_interval, guarded_interval
from models.errors import UserError
from models.fingerprint import file_sha256
from tests.support.arc3_bench import SMALL
from tests.support.falsify_bench import Made, finished_run, made, write_lines
from tests.support.printed import printed

GATES = load_gates()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL))


def falsify(out: Path, flags: dict[str, Any] | None = None, *, run: Path | None = None) -> Any:
    command.start(flags or {}, out=None if run else out, run=run, as_json=True)
    return json.loads(((run or out) / "metrics.json").read_text())


def own(mine: Made, **more: Any) -> Own:
    """A source of the files as they are written."""
    paths = {name: mine.path(name) for name in ("fresh", "labels")}
    options = {name: more.pop(name) for name in ("untruncated", "awaited") if name in more}
    return Own(Files(mine.path("train"), **{**paths, **more}), None, **options)


def test_a_fresh_set_that_was_taken_away_was_there(tmp_path: Path) -> None:
    """And answers that are changed after all was seen are refused; what hangs on them is said."""
    mine, out = made(tmp_path / "mine", n=60).write(labels=("right",)), tmp_path / "run"
    lines = mine.path("labels").read_text().splitlines(keepends=True)
    later = mine.folder / "later.jsonl"
    for path, name in ((later, "-fresh-"), (mine.path("labels"), "-train-")):
        path.write_text("".join(line for line in lines if name in line))
    flags = mine.flags(answers=True, fresh_labels=later, fresh_responses=mine.path("answers"))
    metrics = falsify(out, flags)
    away = [(path, path.read_bytes()) for path in (later, mine.path("fresh"))]
    for path, _ in away:
        path.unlink()
    with pytest.raises(UserError, match="not there yet"):
        falsify(out, run=out)
    for path, content in away:
        path.write_bytes(content)
    assert falsify(out, run=out)["registration"] == metrics["registration"]
    assert metrics["registration"]["state"] == "gates fixed first"
    said = mine.path("answers").read_text()
    mine.path("answers").write_text(said.replace('"stop"', '"length"', 1))
    with pytest.raises(UserError, match=r"--run .*: train\.labels\.responses\.sha256"):
        falsify(out, run=out)
    # a step that hangs on cut answers is not short of items
    found = {one["step"]: one for one in metrics["steps"]}
    found["pooled"] |= steps.only_as_taken(found["pooled"], ["open answers right"])
    judged = claims_of(found, metrics["modes"], [], GATES, axis="right", ends_known=True)
    assert judged["this_model"].verdict is Verdict.INCONCLUSIVE
    assert judged["this_model"].reasons == (ReasonCode.UNFINISHED_ANSWERS,)
    shown = " ".join(printed(report(metrics)).split())
    assert "Step 4 is not decidable: it passes only as its cut answers were taken, not" in shown


def test_labels_that_were_there_are_not_awaited(tmp_path: Path) -> None:
    """--labels holds the fresh set's labels, and --fresh-labels names a file still to be made."""
    mine = made(tmp_path / "mine").write(labels=("right",))
    lines = mine.path("labels").read_text().splitlines(keepends=True)
    later = mine.folder / "later.jsonl"
    later.write_text("".join(line for line in lines if "-fresh-" in line))

    def state() -> str:
        awaited = (f"--fresh {mine.path('fresh')}", f"--fresh-labels {later}")
        source = own(mine, fresh_labels=later, awaited=awaited)
        source.fresh()
        return source.registration("")[0]

    assert state() == "gates fixed first"
    mine.path("labels").write_text("".join(line for line in lines if "-train-" in line))
    assert state() == "preregistered"


def test_what_is_stated_of_ends_is_not_against_what_the_files_say(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", cut=0.1).write()
    with pytest.raises(UserError, match=r"^--untruncated: the files say that 0-train-\d+, "):
        own(mine, responses=mine.path("answers"), untruncated=True).train()
    assert own(mine, untruncated=True).train().ends_known
    first = mine.rows["train"][0]
    lines = [json.loads(line) for line in mine.path("labels").read_text().splitlines()]
    ends = {"stop": "length", "length": "stop"}
    write_lines(mine.path("labels"), [{**lines[0], "finish_reason": ends[first["finish_reason"]]},
                                      *lines[1:]])  # fmt: skip
    with pytest.raises(UserError, match=r"^--responses: the finish_reason of 0-train-0 is "):
        own(mine, responses=mine.path("answers")).train()
    same = {"stop": "eos", "length": "max_tokens"}[first["finish_reason"]]  # in other words
    write_lines(mine.path("labels"), [{**lines[0], "finish_reason": same}, *lines[1:]])
    assert own(mine, responses=mine.path("answers")).train().ends_known


def test_an_answer_that_counts_twice_is_a_fault(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", n=40)
    for name, rows in mine.x["fresh"].items():
        mine.x["fresh"][name] = np.concatenate([rows, rows])
    again = [{**row, "item_id": f"{row['item_id']} again"} for row in mine.rows["fresh"]]
    mine.rows["fresh"] += again
    metrics = falsify(tmp_path / "run", mine.write(labels=("right",)).flags())
    for claim in metrics["claims"].values():
        assert (claim["verdict"], claim["reasons"]) == ("INVALID", ["repeated_items"])
    assert metrics["sets"]["fresh"]["repeated_rows"] == 40
    assert "bit for bit: 40 of 80 fresh" in printed(report(metrics))


def test_two_answers_in_a_hundred_may_be_alike() -> None:
    from arcs.falsification.pipeline import _unfit

    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)

    def with_repeats(k: int) -> Evidence:
        x = rows.copy()
        x[:k] = x[k]
        labels = {"right": tuple(i % 2 == 0 for i in range(100))}
        return Evidence(tuple(map(str, range(100))), {"h_last": x}, labels)

    assert [repeated(with_repeats(k)) for k in (0, 2, 3)] == [0, 2, 3]
    whole = with_repeats(0)
    assert _unfit(whole, with_repeats(2), "right", GATES) == []
    for both in ((whole, with_repeats(3)), (with_repeats(3), whole)):
        assert _unfit(*both, "right", GATES) == [ReasonCode.REPEATED_ITEMS]


def test_answers_to_one_prompt_are_a_group(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine")
    for place, row in enumerate(mine.rows["fresh"]):
        row["prompt"] = f"Question {place // 4}?"
    mine.rows["train"][1]["prompt"] = mine.rows["train"][0]["prompt"]  # one of 120
    source = own(mine.write(), responses=mine.path("answers"))
    assert source.train().groups is None
    assert source.fresh().groups == tuple(row["prompt"] for row in mine.rows["fresh"])


@pytest.mark.parametrize("few", [2, 5])
def test_a_handful_that_lies_close_together_decides_nothing(few: int) -> None:
    """DeLong's variance is next to none where the few right answers have like scores."""
    scores = np.arange(100.0)
    labels = np.isin(scores, 78 + np.arange(few))
    alone, guarded = (one(scores, labels) for one in (delong_interval, guarded_interval))
    asked = GATES.protocol.fresh_auc
    assert alone.low > asked > guarded.low
    assert guarded.low <= alone.low <= alone.high <= guarded.high
    assert steps.fresh_estimate(scores, labels, 0.95).interval == guarded
    many = scores % 5 == 0
    assert many.sum() == FEW and guarded_interval(scores, many) == delong_interval(scores, many)


def _nan(run: Path, found: Made) -> None:
    found.x["train"]["h_last"][3, 2] = np.nan


def _twice(run: Path, found: Made) -> None:
    found.rows["train"][1]["item_id"] = found.rows["train"][0]["item_id"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [(_nan, r"RUN .*h_last holds values that are not finite"), (_twice, r"RUN .*do not match its")],
)
def test_a_damaged_run_is_one_line(
    tmp_path: Path, harm: Callable[[Path, Made], None], message: str
) -> None:
    found = made(tmp_path / "a")
    harm(tmp_path, found)
    source = FinishedRun(finished_run(found, tmp_path / "arc3"))
    with pytest.raises(UserError, match=message) as caught:
        source.train()
    assert "\n" not in str(caught.value)


def test_what_a_run_says_of_itself_is_hashed(tmp_path: Path) -> None:
    """Its faults, and whether its second axis counts, are in its metrics."""
    run = finished_run(made(tmp_path / "a"), tmp_path / "arc3")
    read = {name: one["sha256"] for name, one in FinishedRun(run).train().described.items()
            if isinstance(one, dict) and "sha256" in one}  # fmt: skip
    names = {"features": "features-train.safetensors", "labels": "labels.json",
             "metrics": "metrics.json"}  # fmt: skip
    assert read == {name: file_sha256(run / file) for name, file in names.items()}


def test_a_profile_chosen_after_the_run_is_exploratory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {"git_commit": "abc", "git_dirty": False}
    monkeypatch.setattr("arcs.provenance.code_state", lambda: code)

    def state(of_run: str, profile: str) -> str:
        settings = {"labels": "exact-match", "profile": of_run}
        out = tmp_path / f"{of_run}-{profile}"
        run = finished_run(made(tmp_path / "a"), out, gates=GATES.to_json(), config=settings)
        return registered(FinishedRun(run), parse({"source": run, "profile": profile}), GATES)[0]

    assert state("standard", "quick") == "exploratory"
    for pair in (("standard", "standard"), ("quick", "quick"), ("quick", "standard")):
        assert state(*pair) == "preregistered"


def test_columns_are_hashed_with_the_gates() -> None:
    files = {name: Path(name) for name in ("features", "fresh", "labels")}
    both = [declaration(GATES, parse({**files, "columns": (f"right={name}",)})) for name in "ab"]
    assert both[0] != both[1] and both[0]["choices"]["columns"] == ["right=a"]


def test_states_that_are_not_there_do_not_leave_step_4_out(tmp_path: Path) -> None:
    mine, out = made(tmp_path / "mine").write(labels=("right",)), tmp_path / "run"
    with pytest.raises(UserError, match=r"^--pooled al_layers: the rows have no such states"):
        falsify(out, mine.flags(pooled="al_layers"))
    assert not out.exists()


@pytest.mark.parametrize("name", ["cv_auc", "fresh_auc", "axis_cv_auc", "axis_fresh_auc"])
def test_a_gate_asks_for_more_than_chance(tmp_path: Path, name: str) -> None:
    path = tmp_path / "gates.toml"
    asked = getattr(replace(GATES.protocol), name)
    text = DEFAULT_GATES.read_text().replace(f"\n{name} = {asked:.2f}", f"\n{name} = 0.50")
    assert text != DEFAULT_GATES.read_text()
    path.write_text(text)
    with pytest.raises(UserError, match=rf"protocol\.{name} must be a number between 0\.5 and 1"):
        load_gates(path)
