"""``threearc judge validate`` through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arcs.judging.report import report
from evals.judges.instruments import INSTRUMENTS
from evals.judges.references import references
from tests.support.command_line import call_here
from tests.support.printed import printed, widened


def _judge(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from arcs.cli import main; main()", "judge", "validate"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, check=False)


def test_the_lexical_judge_passes_and_the_document_says_how(tmp_path: Path) -> None:
    done = _judge("--json", "--judge-cache", str(tmp_path / "labels.sqlite"))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document["instruments"]) == {"coverage", "delivery"}
    found = document["instruments"]["coverage"]
    assert found["passes"] and found["n"] >= 150 and found["planted"]["n"] >= 15
    assert found["kappa_interval"]["low"] >= document["bar"]["kappa_low"] == 0.4
    assert found["repeated"]["value"] == 1 and found["order"] is None
    assert document["judge"]["kind"] == "lexical" and document["versions"]["numpy"]
    assert document["published"] is None
    printed(report(document))
    wide = widened(document, count=1234, number=-0.98765)
    longest = max(INSTRUMENTS, key=len)
    wide["instruments"]["delivery"]["instrument"] = longest
    for one in wide["instruments"].values():
        one["order"] = one["repeated"] = {"value": 1.0}
    assert longest.partition(".")[2] in printed(report(wide))
    assert (tmp_path / "labels.sqlite").stat().st_size > 0


def test_the_papers_labels_stand_beside_and_decide_nothing(paper_artifacts: Path) -> None:
    done = _judge("--json", "--instrument", "delivery", "--limit", "60", "--no-repeats",
                  "--published", str(paper_artifacts))  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [one["n"] for one in document["published"]] == [60] * 4
    retracted = document["published"][-1]
    assert "retracted" in retracted["source"] and set(retracted["published_values"]) == {"ASSERT"}
    assert retracted["kappa"] is None  # one value on both sides is no agreement beyond chance
    assert "passes" not in retracted
    printed(report(document))


def test_recorded_labels_below_the_bar_fail_it_in_words(tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    with labels.open("w") as out:
        for one in references("delivery"):
            record = {"question_id": one.question.id, "instrument": "delivery", "value": "ASSERT"}
            out.write(json.dumps(record) + "\n")
    done = call_here(
        "judge", "validate", "--judge", f"recorded:{labels}", "--instrument", "delivery"
    )
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "fails" in shown and "lower bound of kappa" in shown and "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--judge", "oracle"), "lexical, gguf, gguf:MODEL, gguf:MODEL#QUANT"),
        (("--judge", "recorded"), "recorded:FILE"),
        (("--judge", "api:http://x/v1"), "give api:URL#MODEL"),
        (("--judge-threads", "2"), "--judge-threads means nothing to a lexical judge"),
        (("--judge-budget-usd", "2"), "--judge-budget-usd means nothing to a lexical judge"),
        (("--judge", "api:http://x/v1#m", "--judge-budget-usd", "2"), "needs the prices"),
        (("--published", "/none"), "/none: no such folder"),
        (("--instrument", "taste"), "--instrument taste: choose one of coverage"),
        (("--instrument", "certainty"), "cannot apply certainty"),
        (("--judge", "recorded:/none/x.jsonl"), "cannot be read"),
        (("--limit", "1"), "at least 2"),
    ],
)
def test_a_mistake_is_one_line(flags: tuple[str, ...], said: str) -> None:
    done = call_here("judge", "validate", *flags)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
