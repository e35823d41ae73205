"""How judges and labels are named on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from arcs.labels import EMBEDDED, JudgeSource, LabelSource, parse_judge, parse_labels
from models.errors import UserError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lexical", JudgeSource("lexical")),
        ("gguf", JudgeSource("gguf", EMBEDDED)),
        ("gguf:SmolLM2-1.7B-Instruct", JudgeSource("gguf", "SmolLM2-1.7B-Instruct")),
        ("gguf:org/name#q4_k_m", JudgeSource("gguf", "org/name", "q4_k_m")),
        ("api:http://h:1/v1#org/m", JudgeSource("api", "org/m", url="http://h:1/v1")),
        ("recorded:/a/b.jsonl", JudgeSource("recorded", file=Path("/a/b.jsonl"))),
    ],
)
def test_a_judge_has_one_spelling_that_reads_back(text: str, meant: JudgeSource) -> None:
    assert parse_judge(text) == meant == parse_judge(str(meant))


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may be continued from another directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").touch()
    assert parse_judge("recorded:x.jsonl").file == tmp_path / "x.jsonl"
    assert parse_judge("gguf:m.gguf").model == str(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    "text", ["", "oracle", "lexical:x", "recorded", "api:http://h/v1", "api:#m", "GGUF:x"]
)
def test_anything_else_is_one_line_that_names_the_flag(text: str) -> None:
    with pytest.raises(UserError, match=r"^--judge ") as caught:
        parse_judge(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^--labels judge: "):
        parse_labels(f"judge:{text or '?'}")


def test_only_a_judge_needs_validation() -> None:
    for name in ("execution", "exact-match", "meter"):
        assert str(parse_labels(name)) == name and not parse_labels(name).needs_validation
    judged = parse_labels("judge:gguf:m#q8_0")
    assert judged == LabelSource("judge", JudgeSource("gguf", "m", "q8_0"))
    assert judged.needs_validation and parse_labels(str(judged)) == judged
    for text in ("judge", "judge:", "exact match", "lexical"):
        with pytest.raises(UserError, match=r"^--labels .*execution, exact-match, meter or judge:"):
            parse_labels(text)
