"""The real commands ``threearc audit`` and ``threearc reproduce``; without engines: in a process
of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.command_line import call_here

BLOCKED = ("torch", "mlx", "mlx_lm", "llama_cpp", "transformers", "peft")


def threearc(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with the engines impossible to import: none may be needed."""
    program = textwrap.dedent(
        f"""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {BLOCKED!r}:
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Blocked())
        from arcs.cli import main
        main(sys.argv[1:])
        """
    )
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        check=False,
        text=True,
    )


def write_answers(path: Path, cut: int, n: int = 100) -> Path:
    rows = [
        {
            "item_id": f"t{i}",
            "response": f"Answer number {i} says {'x' * (i % 37)} and ends.",
            "finish_reason": "length" if i < cut else "stop",
            "passed": i % 3 == 0,
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_table_is_audited_without_any_engine(tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.jsonl", cut=30)
    done = threearc("audit", "answers.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (audit,) = [one for one in report["audits"] if one["name"] == "truncated-responses"]
    assert audit["findings"][0]["evidence"]["cut"] == 30 and report["counts"]["invalidates"] == 1
    states = {one["name"]: one["state"] for one in report["audits"]}
    assert states["length-wall"] == "clean" and states["in-sample-direction"] == "not applicable"


def test_fail_on_is_for_ci_and_out_keeps_the_document(tmp_path: Path) -> None:
    write_answers(tmp_path / "bad.jsonl", cut=30)
    write_answers(tmp_path / "good.jsonl", cut=0)
    bad = call_here("audit", "bad.jsonl", "--fail-on", "invalidates", "--out", "o", cwd=tmp_path)
    assert bad.returncode == 1 and "INVALIDATES  truncated-responses" in bad.stdout
    assert json.loads((tmp_path / "o" / "audit.json").read_text())["counts"]["invalidates"] == 1
    only = ("--only", "truncated-responses", "--fail-on", "caution")
    good = call_here("audit", "good.jsonl", *only, cwd=tmp_path)
    assert good.returncode == 0 and "Clean: truncated-responses" in good.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit"], "needs a PATH"),
        (["audit", "nowhere"], "nowhere"),
        (["audit", "a.jsonl", "--only", "nothing"], "--list"),
        (["audit", "a.jsonl", "--fail-on", "doom"], "invalidates, biases, caution"),
        (["audit", "a.jsonl", "--columns", "response"], "field=column"),
        (["audit", "a.jsonl", "--out", "a.jsonl"], "--out"),
        (["audit", "/dev/null"], "/dev/null"),
        (["reproduce"], "--download"),
        (["reproduce", "--artifacts", "nowhere"], "no such folder"),
        (["reproduce", "--artifacts", ".", "--download"], "--artifacts"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    write_answers(tmp_path / "a.jsonl", cut=0)
    done = call_here(
        *arguments,
        cwd=tmp_path,
        COLUMNS="120",
        THREEARC_CACHE=str(tmp_path / "c"),
        THREEARC_PAPER_ARTIFACTS="",
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr


def test_every_audit_is_listed(tmp_path: Path) -> None:
    listed = json.loads(call_here("audit", "--list", "--json", cwd=tmp_path).stdout)["audits"]
    assert len(listed) >= 25 and all(one["question"].endswith("?") for one in listed)
    shown = call_here("audit", "--list", cwd=tmp_path).stdout
    assert all(one["name"] in shown for one in listed)


def test_the_papers_files_show_what_is_known_of_them(paper_artifacts: Path, tmp_path: Path) -> None:
    # Issue 3: what the audits must find in the published files, from PAPER.md.
    done = threearc("audit", paper_artifacts, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {
        one["name"]: {finding["where"]: finding for finding in one["findings"]}
        for one in json.loads(done.stdout)["audits"]
    }
    truncated = found["truncated-responses"]
    assert truncated["gemma step16"]["evidence"]["cut"] == 94
    assert truncated["gemma fresh"]["evidence"]["cut"] >= 162
    wall = {place: one["evidence"]["at_wall"] for place, one in found["length-wall"].items()}
    assert wall["smollm step16"] == 25 and wall["qwen35 step16"] == 100
    assert "UNCERTAIN" in str(found["constant-class"])
    assert "2 of 4" in str(found["threshold-quantisation"]["gemma step16: coverage"])
    assert len(found["selection-without-null"]) == 2
    rates = {
        round(one["evidence"].get("null_pass_rate_uniform_scores", 0), 2)
        for one in found["threshold-on-test-labels"].values()
    }
    assert min(rates) == pytest.approx(0.06, abs=0.02)
    assert max(rates) == pytest.approx(0.42, abs=0.04)
    own = [
        one["evidence"]["null_pass_rate_own_scores"]
        for place, one in found["threshold-on-test-labels"].items()
        if "SmolLM2" in place
    ]
    assert own[0] == pytest.approx(0.37, abs=0.03)  # C = 1.0; Monte Carlo error 0.011
    assert any("SmolLM2" in place for place in found["training-cv-gate"])
    misaligned = [
        place
        for place, one in found["misaligned-joins"].items()
        if one["severity"] == "invalidates"
    ]
    assert len(misaligned) == 1 and "retracted" in misaligned[0]


@pytest.mark.slow
def test_the_paper_is_reproduced_without_any_engine(paper_artifacts: Path, tmp_path: Path) -> None:
    done = threearc(
        "reproduce", "--artifacts", paper_artifacts, "--out", "out", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "out" / "reproduce.json").read_text())
    assert found["warnings"] == [] and len(found["claims"]) >= 30
    assert found["counts"]["exact"] > 300 and found["counts"]["contradicts"] > 20
    assert sum(found["counts"].values()) == len(found["rows"])
    assert len(list((tmp_path / "out" / "figures").glob("*.svg"))) == 5


def test_a_folder_with_one_file_missing_or_changed_says_so(
    paper_artifacts: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "files"
    shutil.copytree(paper_artifacts, folder)
    (folder / "alpha_sweep.json").unlink()
    changed = folder / "pca_rank.json"
    changed.write_text(changed.read_text() + "\n")
    flags = ("--artifacts", folder, "--no-figures", "--out", "out")
    done = call_here("reproduce", *flags, cwd=tmp_path, COLUMNS="120")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "reproduce.json").read_text())
    warnings = " ".join(document["warnings"])
    assert "alpha_sweep.json" in warnings and "pca_rank.json" in warnings
    assert document["claims"] == [] and "claims are judged only" in warnings
    assert "Warning" in done.stdout and "alpha_sweep.json" in done.stdout
