"""MBPP's form, on tasks written for this test (none of them is MBPP's)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcs.cli import main
from arcs.data.sets import open_set
from evals.humaneval.problems import Problem


def task(number: int, code: str, *tests: str, **more: object) -> dict[str, object]:
    said = {"task_id": number, "text": f"Task {number}.", "code": code, "test_list": list(tests)}
    return {**said, "test_setup_code": "", "challenge_test_list": [], **more}


GOOD = [
    task(
        1, "import math\r\nSTEP = 2\r\ndef helper(x):\r\n\treturn STEP * x\r\n"
        "def twice(x):\r\n\t'Own words.'\r\n\treturn helper(x)",
        "assert twice(2) == 4", "assert math.isclose(twice(0.5), 1)",
        test_setup_code="import math", challenge_test_list=["assert twice(-1) == -2"],
    ),
    {  # as in the sanitized file
        "task_id": 2, "prompt": 'Say """hi""" \\ twice.', "code": "def hi(): return 'hi\\thi'",
        "test_list": ["assert hi() == 'hi\\thi'"], "test_imports": ["import math"],
    },
    task(3, "def down(n):\n  return [n] + down(n-1) if n else []", "assert down(2) == [2, 1]"),
]  # fmt: skip
UNCLEAR = {
    11: (task(11, "def a(x): return x\ndef b(x): return x", "assert a(1) == b(1)"), "a and b"),
    12: (task(12, "x = 1", "assert x == 1"), "no function that it defines is called"),
    13: (task(13, "class P: pass\ndef g(p): return 1", "assert g(P()) == 1"), "use P, which"),
    14: (task(14, "def f(x) return x", "assert f(1)"), "code is not Python"),
    15: (task(15, "def f(x): return x", "assert f(1) =="), "a test is not Python"),
    16: (task(16, "def f(x): return 1\ndef f(x): return x", "assert f(2) == 2"), "2 times"),
    17: (task(17, "async def f(x): return x", "assert f(2) == 2"), "coroutine"),
    19: (
        task(19, "def f(x): return x\ndef g(x): return x", "assert f(1)", "assert g(1)"),
        "no function that it defines is called by all",
    ),
    18: ({**task(18, "def f(x): return x"), "test_list": []}, "test_list: "),
}
WRONG = task(21, "def w(x):\n    return x + 1", "assert w(1) == 2", "assert w(2) == 2")
UNLOADABLE = task(22, "def one(): return 1\ndef w(x=one()):\n    return x", "assert w(1) == 1")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "oops\n")
    return path


def imported(capsys, path: Path, out: Path, *more: str) -> tuple[int, dict]:
    with pytest.raises(SystemExit) as end:
        main(["data", "import", "mbpp", str(path), "--out", str(out), "--json", *more])
    return int(end.value.code or 0), json.loads(capsys.readouterr().out)


def test_tasks_become_small_tasks_and_the_others_are_listed(tmp_path: Path, capsys) -> None:
    rows = [*GOOD, *(row for row, _ in UNCLEAR.values())]
    path, out = write(tmp_path / "m.jsonl", rows), tmp_path / "o.jsonl"
    status, document = imported(capsys, path, out)
    assert status == 0
    bad = {one["row"]: one["what"] for one in document["bad_rows"]}
    assert (document["rows"], document["records"], len(bad)) == (13, 3, 10)
    for row, (number, (_, why)) in enumerate(UNCLEAR.items(), start=4):
        assert why in bad[row], number
    assert "not JSON" in bad[13]
    found = open_set(str(out))
    assert found.kind.name == "small_task"
    assert [one.id for one in found.records] == ["mbpp/1", "mbpp/2", "mbpp/3"]
    twice = found.records[0]
    assert twice.entry_point == "twice"
    assert twice.prompt == (
        'import math\n\ndef twice(x):\n    """Task 1.\n\n    assert twice(2) == 4\n    """\n'
    )
    assert "helper" not in twice.prompt and "Own words" not in twice.canonical_solution
    assert twice.test.splitlines()[:2] == ["import math", "def check(candidate):"]
    assert twice.test.count("assert candidate(") == 2 and "twice" not in twice.test


def test_solutions_pass_as_humaneval_programs_and_prompts_are_completable(
    tmp_path: Path, capsys
) -> None:
    path, out = write(tmp_path / "m.jsonl", GOOD), tmp_path / "o.jsonl"
    imported(capsys, path, out)
    for one in open_set(str(out)).records:
        space: dict = {}
        exec(one.prompt + one.canonical_solution + "\n" + one.test, space)  # our own code
        space["check"](space[one.entry_point])
        with pytest.raises(AssertionError):
            space["check"](lambda *_: None)
        problem = Problem(one.id, one.prompt, one.entry_point, one.canonical_solution, one.test)
        assert "def " not in problem.preamble  # the signature is the prompt's last function


def test_solutions_that_fail_their_own_tests_are_listed_and_left_out(
    tmp_path: Path, capsys
) -> None:
    path, out = write(tmp_path / "m.jsonl", [*GOOD, WRONG, UNLOADABLE]), tmp_path / "o.jsonl"
    status, document = imported(capsys, path, out, "--check")
    said = [one["what"] for one in document["bad_rows"] if one["row"] is None]
    assert status == 0 and document["checked"] is True
    assert len(said) == 2
    assert said[0].startswith("mbpp/21: its solution fails its own tests: wrong, ")
    assert said[1].startswith("mbpp/22: ") and "NameError" in said[1]
    assert [one.id for one in open_set(str(out)).records] == ["mbpp/1", "mbpp/2", "mbpp/3"]


def test_a_file_without_a_single_task_writes_nothing(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "m.jsonl", [UNCLEAR[12][0]])
    status, document = imported(capsys, path, tmp_path / "o.jsonl")
    assert status == 1 and document["written"] is False
    assert not (tmp_path / "o.jsonl").exists()
