"""``threearc data show``, ``stats``, ``validate`` and ``check-overlap``, as a user calls them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from arcs.cli import main
from arcs.data.kinds import KINDS
from arcs.data.lines import read
from arcs.data.sets import BUILT_IN, generator_not_independent
from evals.humaneval.problems import load_problems
from models.errors import UserError

Run = Callable[..., tuple[int, str, str]]

PASTA = "How long should I boil fresh tagliatelle made with eggs and soft wheat flour?"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in this process: status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*argv: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(part) for part in argv])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record(number: int, prompt: str, **more: object) -> dict[str, object]:
    return {"id": f"r{number}", "prompt": prompt, "response": f"Answer {number}.", **more}


def test_every_set_that_ships_is_listed_with_its_size_hash_and_card(run: Run) -> None:
    status, out, _ = run("data", "show", "--json")
    rows = {row["name"]: row for row in json.loads(out)["sets"]}
    assert status == 0
    assert set(rows) == {
        "chef_train", "chef_fresh", "mcas", "meter", "recovery", "short_answers", "small_tasks",
        "dispositions_code", "dispositions_cooking", "preferences_code", "preferences_cooking",
        "failure_traces_code", "failure_traces_cooking", "boundary_code", "boundary_cooking",
        "placebo_code", "placebo_cooking", "always_hedge_code", "always_hedge_cooking",
    }  # fmt: skip
    assert rows["mcas"]["n"] == 500 and rows["mcas"]["kind"] == "mcas"
    for row in rows.values():
        assert row["licence"] == "MIT" and Path(row["card"]).is_file()
        assert row["sha256"] == hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest()
    status, table, _ = run("data", "show")
    assert status == 0 and all(name in table for name in rows)
    assert max(map(len, table.splitlines())) <= 100


def test_the_lines_of_every_built_in_set_tell_its_kind() -> None:
    """A user's file of the same form needs no --as."""
    for one in BUILT_IN.values():
        assert read(one.path).kind is one.kind
    assert {one.kind.name for one in BUILT_IN.values()} < set(KINDS)


def test_one_record_is_shown_by_its_id(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", record(1, "Why [/b] so?"), record(2, "Another question"))
    status, out, _ = run("data", "show", path, "--id", "r1")
    assert status == 0
    assert "Why [/b] so?" in out and "Another question" not in out
    assert "author   unknown" in out and "more" not in out
    status, out, err = run("data", "show", path, "--id", "r7")
    assert status == 2 and "it has r1, r2" in err and not out


def test_statistics_are_those_of_a_set_counted_by_hand(run: Run, tmp_path: Path) -> None:
    rows = [
        record(1, "one two three four five", kind="code"),
        record(2, "one two three four five six", kind="code"),
        record(3, PASTA, kind="cooking", split="held_out"),
        record(4, PASTA.replace("tagliatelle", "pappardelle"), kind="cooking"),
    ]
    status, out, _ = run("data", "stats", write(tmp_path / "mine.jsonl", *rows), "--json")
    found = json.loads(out)
    assert status == 0 and found["n"] == 4 and found["kind"] == "training"
    assert found["counts"]["kind"] == {"code": 2, "cooking": 2}
    assert found["counts"]["split"] == {"train": 3, "held_out": 1}
    prompts = found["prompts"]
    # the two on pasta have 14 words and begin alike, the other two as well
    assert prompts["words"] == {"least": 5, "q1": 5.75, "median": 10, "q3": 14, "most": 14}
    assert prompts["distinct_openers"] == 0.5
    # 4-grams: 2 + 3 of which 2 repeat; 11 each, of which those without the changed word repeat
    assert prompts["distinct_4_grams"] == pytest.approx((3 + 11 + 4) / (2 + 3 + 11 + 11))
    pairs = [(one["first"], one["second"]) for one in found["nearest"]]
    assert pairs == [("r1", "r2"), ("r3", "r4")] and found["near_duplicates"] == 2


def test_every_bad_line_is_listed_and_counted(run: Run, tmp_path: Path) -> None:
    good = json.dumps(record(1, "A question"))
    lines = [
        good,
        "{",
        json.dumps({"id": "r2", "prompt": "No response", "colour": "red"}),
        good,
        '{"id": "r3", "id": "r4", "prompt": "p", "response": "r"}',
        json.dumps(record(5, "A  QUESTION", split="held_out")),
        "[1]",
        '{"id": "r6", "prompt": "p", "response": NaN}',
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(lines))
    status, out, _ = run("data", "validate", path, "--json")
    found = {one["line"]: one["what"] for one in json.loads(out)["problems"]}
    assert status == 1
    assert set(found) == {2, 3, 4, 5, 6, 7, 8}
    assert "not JSON" in found[2]
    assert "response: Field required" in found[3] and "colour: Extra" in found[3]
    assert found[4] == "id 'r1' again, first in line 1"
    assert "key 'id' occurs twice" in found[5]
    assert found[6] == "'r5' (held_out) has the prompt of 'r1' (train)"
    assert found[7] == "not a JSON object"
    assert "NaN is no JSON number" in found[8]
    status, out, _ = run("data", "validate", path)
    assert status == 1 and "7 bad (training)" in " ".join(out.split())


def test_a_folder_is_checked_whole_also_past_a_file_that_cannot_be_read(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    write(tmp_path / "b.jsonl", record(1, "A question"))
    write(tmp_path / "c.jsonl", {"colour": "red"})
    (tmp_path / "d.jsonl").write_text("\n")
    status, out, _ = run("data", "validate", tmp_path, "--json")
    document = json.loads(out)
    assert status == 1
    assert [(row["good"], row["bad_lines"]) for row in document["files"]] == [
        (0, 1), (1, 0), (0, 1), (0, 1),
    ]  # fmt: skip
    said = " ".join(one["what"] for one in document["problems"])
    assert "UTF-8" in said and "name one with --as" in said and "holds no records" in said
    (tmp_path / "a.jsonl").unlink(), (tmp_path / "c.jsonl").unlink()
    (tmp_path / "d.jsonl").unlink()
    assert run("data", "validate", tmp_path)[0] == 0


def test_overlaps_are_found_in_prompts_and_in_long_answers(run: Run, tmp_path: Path) -> None:
    long = "Boil them for two minutes and taste one before you drain the rest of them all"
    gram = "twelve grey geese walked slowly over the old stone bridge at dawn"
    first = write(
        tmp_path / "a.jsonl",
        {"id": "a1", "prompt": PASTA, "response": "Yes."},
        {"id": "a2", "prompt": "Is salt needed in the water for potatoes?", "response": long},
        {"id": "a3", "prompt": f"Translate this: {gram}", "response": "Certainly."},
    )
    second = write(
        tmp_path / "b.jsonl",
        {"id": "b1", "prompt": PASTA.upper(), "response": "Yes."},
        {"id": "b2", "prompt": PASTA.replace("eggs", "yolks"), "response": "No, never."},
        {"id": "b3", "prompt": "Which herb suits lamb?", "response": long + " "},
        {"id": "b4", "prompt": f"Who wrote that {gram}, and in which year?", "response": "I do."},
    )
    status, out, _ = run("data", "check-overlap", first, second, "--json")
    found = {
        (one["part"], one["how"], one["first"], one["second"])
        for one in json.loads(out)["overlaps"]
    }
    assert status == 1
    assert found == {
        ("prompts", "exact", "a1", "b1"),
        ("prompts", "near", "a1", "b2"),
        ("prompts", "near", "a3", "b4"),
        ("answers", "exact", "a2", "b3"),  # "Yes." in both is nothing that could be learnt
    }
    status, out, _ = run("data", "check-overlap", first, "short_answers")
    assert status == 0 and "nothing shared" in " ".join(out.split())
    problem = load_problems()[4].prompt
    leak = write(tmp_path / "leak.jsonl", {"id": "[/b]", "prompt": problem})
    status, out, _ = run("data", "check-overlap", leak, "humaneval", "--json")
    assert status == 1 and json.loads(out)["overlaps"][0]["second"] == "HumanEval/4"
    status, out, _ = run("data", "check-overlap", leak, "humaneval")
    assert status == 1 and "[/b]" in out and "shared: 1" in out
    status, _, err = run("data", "check-overlap", first)
    assert status == 2 and "at least two" in err


def test_a_shared_passage_of_eight_words_is_an_overlap(run: Run, tmp_path: Path) -> None:
    gram = "twelve grey geese walked slowly over the bridge"
    filler = "Somebody asked me yesterday about something that has nothing to do with birds, namely"
    first = write(tmp_path / "a.jsonl", {"id": "a", "prompt": f"{filler} {gram}"})
    second = write(
        tmp_path / "b.jsonl",
        {"id": "b", "prompt": f"Continue in your own words, in the style of a sonnet: {gram}"},
    )
    third = write(tmp_path / "c.jsonl", {"id": "c", "prompt": f"{filler} {gram[:-7]}"})
    status, out, _ = run("data", "check-overlap", second, first, "--json")
    (found,) = json.loads(out)["overlaps"]
    assert status == 1 and (found["how"], found["first"]) == ("n-gram", "b")
    assert found["text"] == gram
    assert run("data", "check-overlap", second, third)[0] == 0


def test_a_folder_says_which_of_its_files_may_be_meant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    gold = write(tmp_path / "records" / "gold.jsonl", record(1, "A question"))
    write(tmp_path / "prompts.jsonl", record(1, "A question"))
    status, _, err = run("data", "stats", tmp_path)
    assert status == 2 and err.endswith(f"a folder; name one of its files: {gold}\n")
    gold.unlink()
    assert str(tmp_path / "prompts.jsonl") in run("data", "stats", tmp_path)[2]
    (tmp_path / "prompts.jsonl").unlink()
    assert "neither a file nor a set" in run("data", "stats", tmp_path)[2]


def test_sets_of_one_author_are_not_independent(run: Run, tmp_path: Path) -> None:
    assert generator_not_independent("chef_train", "chef_fresh") is True
    assert generator_not_independent("small_tasks", "humaneval") is False
    mine = write(tmp_path / "mine.jsonl", record(1, "A question"))
    assert generator_not_independent("chef_train", str(mine)) is None
    (tmp_path / "mine.jsonl.meta.json").write_text('{"author": "A. Cook", "sha256": "0"}')
    assert generator_not_independent("chef_train", str(mine)) is False
    assert generator_not_independent(str(mine), str(mine)) is True
    with pytest.raises(UserError, match="neither a file nor a set"):
        generator_not_independent("chef_train", "nothing")
    _, out, _ = run("data", "show", mine)
    assert "author   A. Cook" in out and "with none of threearc's own sets" in " ".join(out.split())
    assert "mine.jsonl was changed" in " ".join(out.split())
    _, out, _ = run("data", "show", "chef_train", "--limit", 1)
    assert "generator_not_independent with chef_fresh" in out
    (tmp_path / "mine.jsonl.meta.json").write_text("{")
    status, _, err = run("data", "show", mine)
    assert status == 2 and "mine.jsonl.meta.json: cannot be read" in err
