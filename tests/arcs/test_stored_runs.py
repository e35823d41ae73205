"""``threearc runs``: what is listed, what differs, and that nothing goes by mistake."""

from __future__ import annotations

import fcntl
import io
import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from arcs import stored_runs
from arcs.cli import main
from arcs.report import command
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
    RunDirectory.create(tmp_path / "c", {}).close()
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


def test_a_cell_at_work_keeps_its_sweep(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After kill -9 of the sweep its cell goes on, and the sweep's own lock is free."""
    RunDirectory.create(folder / "s", {"arc": "sweep"}).close()
    with RunDirectory.create(folder / "s" / "cells" / "one", {"arc": "arc1"}):
        assert listed(folder, capsys)["s"]["state"] == "running"
        with pytest.raises(UserError, match="is working in this run; nothing is removed"):
            stored_runs.remove([folder / "s"], yes=True, as_json=False)
    assert listed(folder, capsys)["s"]["state"] == "unfinished"


def test_a_look_at_a_run_keeps_nobody_from_working_in_it(folder: Path) -> None:
    with (folder / "b" / ".lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)  # what in_use holds for a moment
        threading.Timer(0.05, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        with RunDirectory.resume(folder / "b"):
            assert stored_runs.in_use(folder / "b")


@pytest.mark.parametrize("text", ['{"name": "my site"}', '{"arc": 1}', '["arc"]', "{ not ours"])
def test_a_folder_with_somebody_else_s_manifest_is_no_run(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    site = folder / "webapp"
    site.mkdir()
    (site / "manifest.json").write_text(text)
    (site / METRICS).write_text("{}")
    assert "webapp" not in listed(folder, capsys)
    for act in (
        lambda: stored_runs.remove([site], yes=True, as_json=False),
        lambda: stored_runs.show(site, as_json=False),
        lambda: command.start([site], kind="html", out=None),
    ):
        with pytest.raises(UserError, match=r"no run here|cannot be read|no run$"):
            act()
    assert sorted(one.name for one in site.iterdir()) == ["manifest.json", METRICS]


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        (METRICS, {"claim": {**CLAIM, "estimate": {}}}, "metrics.json: does not hold .*'value'"),
        (METRICS, {"claim": {**CLAIM, "gate": {"alpha": "a", "smallest_effect": 1}}}, "ValueError"),
        ("timing.json", {"phases": [1]}, "timing.json: does not hold"),
        ("timing.json", {"phases": {"x": {"starts": [1, "b"]}}}, "timing.json: does not hold"),
        ("timing.json", {"phases": {"x": {"starts": [1]}}}, "a date is text, not 1"),
    ],
)
def test_an_odd_run_is_listed_as_damaged_beside_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any, seen: str
) -> None:
    (folder / "a" / name).write_text(json.dumps(value))
    found = listed(folder, capsys)
    assert (found["a"]["state"], found["b"]["state"]) == ("damaged", "unfinished")
    assert re.search(seen, found["a"]["detail"])
    assert "\n" not in found["a"]["detail"] and str(folder / "a") in found["a"]["detail"]
    if name == METRICS:
        for argv in (["report"], ["runs", "show"]):
            with pytest.raises(SystemExit) as caught:
                main([*argv, str(folder / "a")])
            said = capsys.readouterr()
            assert caught.value.code == 2 and said.out == "" and said.err.count("\n") == 1
            assert str(folder / "a") in said.err


def test_what_a_run_at_work_renames_meanwhile_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored_runs.size_of(folder / "a")
    vanishing = folder / "a" / ".metrics.json.abc.part"
    vanishing.write_text("x")
    really = Path.lstat

    def lstat(path: Path) -> Any:
        if path.name == vanishing.name:
            vanishing.unlink(missing_ok=True)
        return really(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert stored_runs.size_of(folder / "a") == before
    vanishing.write_text("x")
    stored_runs.show(folder / "a", as_json=True)
    assert METRICS in json.loads(capsys.readouterr().out)["files"]


def test_what_cannot_be_removed_is_said_with_what_remains(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = shutil.rmtree

    def rmtree(path: str) -> None:
        if Path(path).name == "b":
            (folder / "b" / "timing.json").unlink()
            raise PermissionError(1, "Operation not permitted", "b/manifest.json")
        really(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(UserError) as caught:
        stored_runs.remove([folder / one for one in "abc"], yes=True, as_json=False)
    said = str(caught.value)
    assert "b: cannot be removed whole (Operation not permitted: b/manifest.json)" in said
    assert "2 of its files remain" in said  # manifest and lock
    assert f"removed: {folder / 'a'}" in said and f"untouched: {folder / 'c'}" in said


def test_a_terminal_obeys_nothing_that_a_run_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = "m\x1b[2J\u202en"
    manifest = {"arc": "arc1", "config": {"model": turned}}
    with RunDirectory.create(folder / "t", manifest) as run:
        run.write_json(METRICS, {"claim": {**CLAIM, "statement": turned}})
    stored_runs.list_runs(folder, as_json=False)
    stored_runs.show(folder / "t", as_json=False)
    stored_runs.diff([folder / "a", folder / "t"], as_json=False)
    said = capsys.readouterr().out
    assert said.count("U+001B") >= 4 and "\x1b[2J" not in said and "\u202e" not in said


def test_a_sweep_says_how_many_cells_failed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, failed in (("s", 2), ("t", 0)):
        with RunDirectory.create(folder / name, {"arc": "sweep"}) as run:
            run.write_json(METRICS, {"failed": failed})
    found = listed(folder, capsys)
    assert (found["s"]["state"], found["t"]["state"]) == ("finished, 2 failed", "finished")


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
