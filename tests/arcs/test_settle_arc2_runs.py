"""``threearc settle`` of an Arc 2 run of a tiny model with a planted head: killed, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from arcs.arc2.config import parse
from arcs.arc2.further import Items, prepared_of
from arcs.falsification import latest
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from arcs.settling.damped_items import QUESTIONS, chosen, source_of, whole_set
from arcs.settling.damping import OF_ITEMS, Damping
from arcs.settling.pipeline import subject_of
from arcs.settling.subject import OWN
from backends.interface import Completion
from tests.support.arc2_bench import Bench
from tests.support.command_line import call_here
from tests.support.killed_settle import settle_both
from tests.support.labels_by_id import install

pytestmark = pytest.mark.slow
FLAGS = {"labels": "exact-match", "limit": 40, "sweep_limit": 20, "axis_items": 12, "n_predict": 3,
         "controls": "strongest"}  # fmt: skip
"""Twenty answers of which too few are right to exclude that those are hedged too."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("settle-arc2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(root / "cache"))
        install(patch)
        patch.setattr("arcs.arc2.pipeline.verify", lambda *_, **__: "not asked")
        bench = Bench(root)
        path, metrics = bench.run(bench.flags("planted", **FLAGS))
        assert metrics["claim"]["reasons"] == ["open"], metrics["claim"]
        yield path


def test_a_killed_settle_ends_in_the_same_bytes_with_the_same_heads(run: Path) -> None:
    until = "look-2/1-hedging/meter.top-0.jsonl"
    whole, killed, found = settle_both(run, until, "--max-items", "16", "--json")
    parts = [f"look-2/1-hedging/{name}" for name in ("meter.top-0.jsonl", "metrics.json")]
    parts += [f"look-2/2-questions/{name}" for name in ("answers.top-0.jsonl",
                                                        "transcripts.jsonl")]  # fmt: skip
    for name in ("plan.json", "looks.jsonl", *parts):
        one, two = ((path / "settle" / name).read_bytes() for path in (whole, killed))
        assert one == two, name
    _require_the_runs_own_settings(whole, found["claims"]["damping"])
    (row,) = latest.rows([whole])
    (shown,) = row["claims"]
    assert shown["settled"]["n_items"] == 28


def _require_the_runs_own_settings(run: Path, claim: dict[str, Any]) -> None:
    """Other items, and each number that of the same heads at the same lambdas."""
    folder = run / "settle" / "look-2"
    meter, asked = folder / "1-hedging", folder / "2-questions"
    own = json.loads((run / "manifest.json").read_text())
    for path in (meter, asked):
        made = json.loads((path / "manifest.json").read_text())
        for key in ("model", "engine", "chat", "gates", "backend"):
            assert own[key] == made[key], key
        assert made["selection"]["arms"]["top"] == own["selection"]["arms"]["top"]
    assert not list(folder.rglob("*bottom*"))  # no rule reads the other end of the ranking

    def lines(path: Path, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (path / name).open()]

    used = {one["item_id"] for one in lines(run, "meter.base.jsonl")} | set(
        own["meter"]["ablated_on"]
    )
    new = [one["item_id"] for one in lines(meter, "meter.base.jsonl")]
    assert len(new) == 8 and not used & set(new)
    answered = {one["item_id"] for one in lines(run, "answers.base.jsonl")}
    assert len(lines(asked, "answers.top-0.jsonl")) == 13
    assert not answered & {one["item_id"] for one in lines(asked, "answers.base.jsonl")}
    # the planted head holds the axis down, here as there
    before, after = (lines(meter, f"meter.{name}.jsonl") for name in ("base", "top-0"))
    shifts = [b["contrast"] - a["contrast"] for a, b in zip(before, after, strict=True)]
    assert sum(shifts) / len(shifts) > 0.3 and claim["delta"] > 0.3
    assert [look["n_items"] for look in claim["looks"]] == [12, 20, 28]


def test_another_engine_label_rule_or_item_is_one_line(run: Path) -> None:
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    meter = {**manifest["meter"], "swept_on_sha256": "x"}
    for part, message in (
        ({"engine": {**manifest["engine"], "dtype": "bfloat16"}}, "it was run with dtype bfloat16"),
        ({"labels": {**manifest["labels"], "right": "x"}}, "its labels have other items, words or"),
        ({"meter": meter}, "its meter have other items, words or rules now"),
    ):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **part}))
        done = call_here("settle", copy, "--max-items", 8)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
        assert not (copy / "settle").exists()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    read = copy / "meter.top-0.jsonl"
    first, *rest = read.read_text().splitlines(keepends=True)
    changed = {**json.loads(first), "contrast": 9.0}
    read.write_text(json.dumps(changed) + "\n" + "".join(rest))
    done = call_here("settle", copy, "--dry-run")
    assert done.returncode == 2 and "the change of meter: hedging at top-0 comes to" in done.stderr


@pytest.mark.parametrize(
    ("labels", "disposition"),
    [("exact-match", "humble"), ("execution", "humble"), ("execution", "self-improving"),
     ("judge:lexical", "humble"), ("meter", "humble")],
)  # fmt: skip
def test_new_items_are_labelled_as_the_runs_own_are(
    run: Path, tmp_path: Path, labels: str, disposition: str
) -> None:
    subject = subject_of(run)
    assert isinstance(subject, Damping)
    config = parse({**subject.config.model_dump(mode="json"), "labels": labels,
                    "disposition": disposition, "rank_by": "magnitude", "causal_items": 0,
                    "allow_weak_sandbox": False})  # fmt: skip
    quiet, directory = Reporter(quiet=True), RunDirectory(tmp_path, -1)
    own = prepared_of(config, directory, quiet)
    items = Items()
    if labels != "meter":
        used = {one.item_id for one in own.source.prompts}
        order = source_of(OWN, config, QUESTIONS).asked
        ids = [item for item in order if item not in used][:2]
        items = Items(questions=chosen(whole_set(OWN, config, QUESTIONS), ids))
    new = prepared_of(config, directory, quiet, items)
    was, now = (
        {key: value for key, value in one.source.describe().items() if key not in OF_ITEMS}
        for one in (own, new)
    )
    assert was == now and new.n_predict == own.n_predict
    if labels == "meter":
        assert not new.source.prompts
        return
    assert [one.item_id for one in new.source.prompts] == ids and len(ids) == 2
    said = [Completion(one.item_id, one.ids, (5,), "stop", 0.0, 0) for one in new.source.prompts]
    found = new.source.label(said, None, "base")
    assert [one.item_id for one in found] == ids and all(one.right is False for one in found)
