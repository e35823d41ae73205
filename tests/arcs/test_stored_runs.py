"""``threearc runs``: what is listed, what differs, and that nothing goes by mistake."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from arcs import stored_runs
from arcs.runs import METRICS, RunDirectory
from models.errors import UserError

CLAIM = {"statement": "s", "verdict": "REFUTED", "reasons": [], "n_items": 4, "delta": 0.0,
         "interval": None}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run, an unfinished one, a damaged one, and what is no run."""
    for name, seed in (("a", 1), ("b", 2)):
        manifest = {"arc": "arc1", "config": {"model": "m", "seed": seed, "lr": 0.1}}
        with RunDirectory.create(tmp_path / name, manifest) as run, run.timed("prepare"):
            if name == "a":
                run.write_json(METRICS, {"claim": CLAIM, "budgets": [{"claim": CLAIM}]})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.json").write_text("{")
    (tmp_path / "notes").mkdir()
    return tmp_path


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    stored_runs.list_runs(folder, as_json=True)
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["runs"]}


def test_every_run_is_listed_a_damaged_one_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(folder, capsys)
    states = {name: row["state"] for name, row in found.items()}
    assert states == {"a": "finished", "b": "unfinished", "c": "damaged"}
    assert found["a"]["verdicts"] == ["REFUTED"] and found["a"]["begun"] is not None
    size = sum(one.stat().st_size for one in (folder / "a").iterdir())
    assert found["a"]["bytes"] == size
    assert "manifest.json cannot be read" in found["c"]["detail"]
    stored_runs.list_runs(folder, as_json=False)
    assert "REFUTED" in capsys.readouterr().out


def test_a_run_that_is_being_made_is_seen_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory.resume(folder / "b"):
        assert listed(folder, capsys)["b"]["state"] == "running"
        with pytest.raises(UserError, match="is working in this run; nothing is removed"):
            stored_runs.remove([folder / "a", folder / "b"], yes=True, as_json=False)
    assert (folder / "a").exists()  # all or none
    assert listed(folder, capsys)["b"]["state"] == "unfinished"


def test_looking_at_a_run_leaves_no_trace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a" / ".lock").unlink()
    before = sorted(folder.rglob("*"))
    listed(folder, capsys)
    stored_runs.show(folder / "a", as_json=False)
    assert "REFUTED" in capsys.readouterr().out
    stored_runs.show(folder / "a", as_json=True)
    assert json.loads(capsys.readouterr().out)["settings"]["seed"] == 1
    assert sorted(folder.rglob("*")) == before


def test_only_what_differs_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_runs.diff([folder / "a", folder / "b"], as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "runs": ["a", "b"],
        "differences": [{"setting": "settings.seed", "values": {"a": "1", "b": "2"}}],
    }
    with pytest.raises(UserError, match="a is given twice"):
        stored_runs.diff([folder / "a", folder / "." / "a"], as_json=True)
    with pytest.raises(UserError, match="needs at least two"):
        stored_runs.diff([folder / "a"], as_json=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("said", "gone"), [("y\n", True), ("Yes\n", True), ("\n", False),
                                            ("n\n", False), ("", False)])  # fmt: skip
def test_it_asks_before_it_removes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, gone: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(said))
    if gone:
        stored_runs.remove([folder / "b"], yes=False, as_json=False)
    else:
        with pytest.raises(UserError, match=r"^nothing is removed$"):
            stored_runs.remove([folder / "b"], yes=False, as_json=False)
    assert (folder / "b").exists() is not gone
    assert (folder / "a").exists()


def test_nothing_goes_that_is_no_run_or_that_nobody_confirmed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # a pipe, not a person
    with pytest.raises(UserError, match="without a terminal give --yes"):
        stored_runs.remove([folder / "a"], yes=False, as_json=False)
    (folder / "link").symlink_to(folder / "a")
    for path, message in (("notes", "no run here"), ("nowhere", "no run here"), ("link", "a link")):
        with pytest.raises(UserError, match=message):
            stored_runs.remove([folder / "a", folder / path], yes=True, as_json=False)
    assert (folder / "a").exists() and (folder / "notes").exists()


def test_what_was_asked_for_is_removed_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs.remove([folder / "a", folder / "a", folder / "c"], yes=True, as_json=True)
    removed = json.loads(capsys.readouterr().out)["removed"]
    assert removed == [str(folder / "a"), str(folder / "c")]
    assert sorted(one.name for one in folder.iterdir()) == ["b", "notes"]


def test_a_folder_without_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs here") as caught:
        stored_runs.list_runs(tmp_path / "runs", as_json=False)
    assert "\n" not in str(caught.value)
