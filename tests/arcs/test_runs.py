"""Run directories survive kills, refuse damage, and never mix two runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcs.runs import JsonLines, RunDirectory, canonical_json, write_text_atomically
from models.errors import UserError

RECORDS = st.lists(
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()), max_size=6
)


@settings(max_examples=40)
@example(records=[{"\x85\u2028": ""}], cut=100)
@given(records=RECORDS, cut=st.integers(min_value=0))
def test_a_torn_last_line_is_dropped_and_nothing_else(tmp_path_factory, records, cut):
    path = tmp_path_factory.mktemp("torn") / "x.jsonl"
    lines = JsonLines.open(path)
    for record in records:
        lines.append(record)
    raw = path.read_bytes() if path.exists() else b""
    kept = raw[: cut % (len(raw) + 1)]
    path.write_bytes(kept)

    again = JsonLines.open(path)

    assert again.records == records[: kept.count(b"\n")]
    again.append({"after": 1})
    assert JsonLines.open(path).records == [*records[: kept.count(b"\n")], {"after": 1}]


def test_damage_in_the_middle_is_an_error_with_the_line_number(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        JsonLines.open(path)


def test_a_record_is_on_disk_when_append_returns(tmp_path):
    path = tmp_path / "x.jsonl"
    JsonLines.open(path).append({"a": 1})
    assert path.read_text() == '{"a": 1}\n'


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "x.json"
    write_text_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_canonical_json_does_not_depend_on_key_order_and_refuses_nan():
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": float("nan")})


def test_a_new_run_refuses_a_directory_in_use(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        RunDirectory.create(tmp_path / "x", {})
    assert (tmp_path / "x" / "thesis.txt").read_text() == "mine"


def test_out_on_an_existing_run_names_the_way_to_continue(tmp_path):
    RunDirectory.create(tmp_path / "x", {"arc": "arc1"}).close()
    with pytest.raises(UserError, match="--run"):
        RunDirectory.create(tmp_path / "x", {})


def test_a_run_killed_before_its_manifest_can_begin_again(tmp_path):
    path = tmp_path / "x"
    RunDirectory.create(path, {}).close()
    (path / "manifest.json").unlink()
    (path / ".manifest.json.abc.part").write_text("{")
    with RunDirectory.create(path, {"arc": "arc1"}) as run:
        assert run.manifest() == {"arc": "arc1"}


def test_continuing_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no run here"):
        RunDirectory.resume(tmp_path)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from arcs.runs import RunDirectory\n"
        "run = RunDirectory.create(Path(sys.argv[1]), {}); print('locked', flush=True)\n"
        "time.sleep(60)"
    )
    path = tmp_path / "x"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another threearc process"):
            RunDirectory.resume(path)
        other.kill()
    RunDirectory.resume(path).close()


def test_the_manifest_takes_new_entries_and_refuses_changed_ones(tmp_path):
    with RunDirectory.create(tmp_path / "x", {"arc": "arc1"}) as run:
        run.extend_manifest(model={"name": "a", "sha": "1"})
        run.extend_manifest(model={"name": "a", "sha": "1"}, more=[1, 2])
        with pytest.raises(UserError, match=r'model\.sha was "1" and is now "2"'):
            run.extend_manifest(model={"name": "a", "sha": "2"})
        assert run.manifest() == {
            "arc": "arc1",
            "model": {"name": "a", "sha": "1"},
            "more": [1, 2],
        }


def test_time_is_summed_over_continuations_and_kept_out_of_other_files(tmp_path):
    with RunDirectory.create(tmp_path / "x", {}) as run:
        for _ in range(2):
            with run.timed("decode") as counts:
                counts["tokens"] = 5
        timing = json.loads((tmp_path / "x" / "timing.json").read_text())
    assert timing["phases"]["decode"]["counts"] == {"tokens": 10}
    assert len(timing["phases"]["decode"]["starts"]) == 2
    assert (tmp_path / "x" / "manifest.json").read_text() == "{}\n"
