"""Labels that are kept: the cache that runs share, and labels from a file."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from evals.judges.cache import CachedJudge, LabelCache
from evals.judges.instruments import CERTAINTY, COVERAGE
from evals.judges.labels import JudgeId, Question, labelled
from evals.judges.recorded import RecordedJudge
from models.errors import UserError


class Counting:
    """Answers YES, and remembers what it was asked."""

    def __init__(self, status="ok", name="m") -> None:
        self.id, self.asked, self.status = JudgeId("api", name, "v"), [], status

    def label(self, questions, *, on_label=None):
        made = []
        for one in questions:
            self.asked.append(one.id)
            value = "YES" if self.status == "ok" else None
            made.append(labelled(one, self.id, self.status, value))
            if on_label:
                on_label(made[-1])
        return made


def _questions(n: int) -> list[Question]:
    return [
        Question(f"q{i}", COVERAGE, {"question": "q", "response": f"r{i}", "claim": "c"})
        for i in range(n)
    ]


def test_nothing_is_asked_twice_and_labels_get_the_asking_id(tmp_path: Path) -> None:
    cache, judge, seen = LabelCache(tmp_path / "a" / "labels.sqlite"), Counting(), []
    first = CachedJudge(judge, cache).label(_questions(3))
    renamed = [Question("new", COVERAGE, dict(_questions(1)[0].fields)), *_questions(4)[2:]]
    second = CachedJudge(judge, cache).label(renamed, on_label=seen.append)
    assert judge.asked == ["q0", "q1", "q2", "q3"]
    assert [label.question_id for label in second] == ["new", "q2", "q3"]
    assert second[0].text_sha256 == first[0].text_sha256 and len(seen) == 3


@pytest.mark.parametrize("change", ["judge", "text", "prompt", "attempt"])
def test_another_judge_text_prompt_or_attempt_is_asked(tmp_path: Path, change: str) -> None:
    cache = LabelCache(tmp_path / "labels.sqlite")
    CachedJudge(Counting(), cache).label(_questions(1))
    other = Counting(name="other") if change == "judge" else Counting()
    (asked,) = _questions(1)
    if change == "text":
        asked = Question("q0", COVERAGE, {**asked.fields, "claim": "d"})
    if change == "prompt":
        asked = Question("q0", COVERAGE.reordered(), asked.fields)
    CachedJudge(other, cache, attempt=int(change == "attempt")).label([asked])
    assert other.asked == ["q0"]


@pytest.mark.parametrize(("status", "asked"), [("unparsed", 1), ("error", 2), ("missing", 2)])
def test_failures_are_asked_again_and_unparsed_answers_are_not(tmp_path, status, asked) -> None:
    cache, judge = LabelCache(tmp_path / "labels.sqlite"), Counting(status)
    for _ in range(2):
        CachedJudge(judge, cache).label(_questions(1))
    assert len(judge.asked) == asked


def test_one_id_under_two_instruments_is_two_questions(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "labels.sqlite")
    fields = {"question": "q", "response": "r", "claim": "c"}
    asked = [Question("same", COVERAGE, fields), Question("same", COVERAGE.reordered(), fields)]
    labels = CachedJudge(Counting(), cache).label(asked)
    again = CachedJudge(Counting(), cache).label(asked[::-1])
    assert labels == again[::-1] and labels[0].prompt_sha256 != labels[1].prompt_sha256
    with pytest.raises(ValueError, match="asked twice"):
        CachedJudge(Counting(), cache).label([asked[0], asked[0]])


def _write(path: str, start: int) -> None:
    CachedJudge(Counting(), LabelCache(Path(path))).label(_questions(start + 40)[start:])


def test_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    spawn = multiprocessing.get_context("spawn")
    running = [spawn.Process(target=_write, args=(str(path), start)) for start in (0, 20, 40)]
    for one in running:
        one.start()
    for one in running:
        one.join()
        assert one.exitcode == 0
    judge = Counting()
    CachedJudge(judge, LabelCache(path)).label(_questions(80))
    assert judge.asked == []


def test_a_file_that_is_no_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not a database" * 100)
    with pytest.raises(UserError, match="cache of labels cannot be used"):
        LabelCache(tmp_path / "x")
    with contextlib.closing(sqlite3.connect(tmp_path / "y")) as db, db:
        db.execute("create table labels (x)")
    with pytest.raises(UserError, match=r"cannot be used .*--judge-cache"):
        LabelCache(tmp_path / "y")


def test_a_row_of_another_version_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    CachedJudge(Counting(), LabelCache(path)).label(_questions(1))
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("update labels set label = '{}'")
    judge = Counting()
    for _ in range(2):  # once: the new label takes the old one's place
        CachedJudge(judge, LabelCache(path)).label(_questions(1))
    assert judge.asked == ["q0"]


# Recorded labels ---------------------------------------------------------------------------


def _file(tmp_path: Path, *records: object) -> Path:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in records), encoding="utf-8")
    return path


def _record(question: str, value: object, instrument: str = "coverage", **more: object) -> dict:
    return {"question_id": question, "instrument": instrument, "value": value, **more}


def test_recorded_labels_are_joined_by_id_instrument_and_text(tmp_path: Path) -> None:
    asked = _questions(5)
    path = _file(
        tmp_path,
        _record("q0", "YES", text_sha256=asked[0].text_sha256()),
        _record("q1", "yes of course"),
        _record("q2", "NO", text_sha256="0" * 64),
        _record("q3", "CERTAIN", "certainty"),
        _record("q4", None),
    )
    judge = RecordedJudge(path)
    labels = judge.label([*asked, Question("q3", CERTAINTY, {"question": "q"})])
    statuses = ["ok", "unparsed", "error", "missing", "unparsed", "ok"]
    assert [label.status for label in labels] == statuses
    assert [label.value for label in labels] == ["YES", None, None, None, None, "CERTAIN"]
    assert judge.id.kind == "recorded" and judge.id.name == "labels.jsonl"
    assert judge.describe() == {"labels": 5, "without_text_sha256": 3}


def test_labels_of_a_run_can_be_recorded_ones_of_one_judge_and_prompt(tmp_path: Path) -> None:
    asked = _questions(3)
    lines = [labelled(one, Counting().id, "ok", "NO").to_json() for one in asked]
    failed = labelled(asked[0], Counting().id, "error", detail="HTTP 500").to_json()
    lines[1]["prompt_sha256"] = "0" * 64
    labels = RecordedJudge(_file(tmp_path, failed, *lines)).label(asked)
    assert [label.status for label in labels] == ["ok", "error", "ok"]
    assert labels[1].detail == "the label is of another prompt"
    lines[2]["judge"]["version"] = "another"
    with pytest.raises(UserError, match="line 3: of another judge than lines before"):
        RecordedJudge(_file(tmp_path, *lines))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"question_id": "a", "value": 1}], "line 1: give question_id, instrument and value"),
        ([_record("a", 1), _record("a", 1)], "line 2: a has a second label of coverage"),
        ([], "holds no labels"),
        ([7], "line 1: give"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, records: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        RecordedJudge(_file(tmp_path, *records))
    with pytest.raises(UserError, match="cannot be read"):
        RecordedJudge(tmp_path / "none.jsonl")
