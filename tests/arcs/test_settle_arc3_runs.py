"""``threearc settle`` of an Arc 3 run of an edited tiny model: killed, continued, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from arcs.arc3 import command, features
from arcs.arc3.config import MORE, parse
from arcs.arc3.edit import edit_of
from arcs.arc3.engine import Engine, opened
from arcs.arc3.further import run_more
from arcs.arc3.pipeline import More
from arcs.falsification import latest
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.settling.probe_items import items_of, own_source
from arcs.settling.probing import Probing
from arcs.settling.subject import OWN
from arcs.subruns import sub_run
from backends.interface import HiddenPoint
from models.errors import UserError
from models.store import prepare
from tests.support.adapters import live_adapter, saved
from tests.support.arc3_bench import SMALL
from tests.support.command_line import call_here
from tests.support.hedging import LORA
from tests.support.killed_settle import settle_both
from tests.support.labels_by_id import install
from tests.support.tiny_models import build_tiny
from tests.support.tolerances import tolerance

MADE = ("responses.jsonl", "features-fresh.safetensors", "labels.json", "transcripts.jsonl",
        "metrics.json")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Twenty questions a set, of which the run could not tell."""
    root = tmp_path_factory.mktemp("settle-arc3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(root / "cache"))
        install(patch)
        patch.setattr("arcs.arc3.pipeline.verify", lambda *_, **__: "not asked")
        patch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))
        patch.setattr("evals.probing.probes.MLP_ITERATIONS", 5)
        model = build_tiny("llama", root / "model")
        directory = prepare(str(model))
        adapter = saved(root / "mine", directory, LORA, live_adapter(directory, LORA))
        flags = {"model": str(model), "adapter": adapter, "backend": "torch", "profile": "quick",
                 "limit": 20, "n_predict": 3}  # fmt: skip
        command.start(flags, out=root / "run", run=None, as_json=True)
        path = root / "run" / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["claims"]["transfer"] |= {"verdict": "INCONCLUSIVE", "reasons": ["underpowered"]}
        metrics["permutation"]["p_value"] = 0.01
        path.write_text(json.dumps(metrics))
        yield root / "run"


@pytest.mark.slow
def test_a_killed_settle_of_an_edited_model_ends_in_the_same_bytes(run: Path) -> None:
    until = "look-3/1/responses.jsonl"
    whole, killed, found = settle_both(run, until, "--max-items", "16", "--json")
    looks = [f"look-{k}/1/{name}" for k in (2, 3) for name in MADE]
    for name in ("plan.json", "looks.jsonl", *looks):
        one, two = ((path / "settle" / name).read_bytes() for path in (whole, killed))
        assert one == two, name
    _require_the_runs_own_settings(whole, found["claims"]["transfer"])
    (row,) = latest.rows([whole])
    (shown,) = (one for one in row["claims"] if one["settled"] is not None)
    assert shown["settled"]["n_items"] == 36 and "right from wrong" in shown["statement"]


def _require_the_runs_own_settings(run: Path, claim: dict[str, Any]) -> None:
    """New fresh questions, asked of the edited model and read where the run was."""
    part = run / "settle" / "look-2" / "1"
    used, new = ({json.loads(line)["item_id"] for line in (path / "responses.jsonl").open()}
                 for path in (run, part))  # fmt: skip
    assert len(used) == 40 and len(new) == 8 and not used & new
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (run, part)]
    for key in ("model", "engine", "chat", "gates", "labels", "backend"):
        assert manifests[0][key] == manifests[1][key], key
    own, more = (features.read(features.path_of(path, "fresh")) for path in (run, part))
    assert own.definition == more.definition and len(more.item_ids) == 8
    assert [look["n_items"] for look in claim["looks"]] == [20, 28, 36]
    config = manifests[0]["config"]
    directory = prepare(config["model"])
    edit = edit_of(Path(config["adapter"]), directory, gguf=False)
    ids = more.arrays["ids"][: int(more.arrays["lengths"][0])].tolist()
    place = int(more.arrays["positions"][0])
    for with_edit in (edit, None):
        engine = Engine("torch", "float32", "f32")
        with opened(engine, directory, longest=99, reporter=Reporter(quiet=True),
                    edit=with_edit) as model:  # fmt: skip
            row = model.hidden_states([ids], [place], [HiddenPoint(3, True)])[0, 0]
        apart = np.linalg.norm(row - more.arrays["h_last"][0]) / np.linalg.norm(row)
        assert (apart < tolerance("h_last")) == (with_edit is not None), apart


@pytest.mark.slow
def test_another_engine_adapter_or_question_is_one_line(run: Path) -> None:
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    engine = {**manifest["engine"], "dtype": "bfloat16"}
    model = {**manifest["model"], "adapter": {"name": "mine", "sha256": "x"}}
    asked = {**manifest["questions"], "fresh": {**manifest["questions"]["fresh"], "n": 3}}
    for part, message in (
        ({"engine": engine}, "it was answered with dtype bfloat16, and new items would be with"),
        ({"model": model}, "mine: it is no longer the adapter of"),
        ({"questions": asked}, "its fresh questions have other words or other kinds now"),
        ({"chat": {}}, "chat was another when it was run"),
    ):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **part}))
        done = call_here("settle", copy, "--max-items", 8)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
        assert not (copy / "settle").exists()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["claims"]["transfer"]["estimate"]["value"] += 0.01
    (copy / "metrics.json").write_text(json.dumps(metrics))
    done = call_here("settle", copy, "--dry-run")
    assert done.returncode == 2 and "its answers give an AUC of" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["execution", "judge:lexical"])
def test_new_answers_are_labelled_by_what_labelled_the_runs_own(
    run: Path, tmp_path: Path, labels: str
) -> None:
    config = parse({"model": str(run.parent / "model"), "labels": labels, "backend": "torch",
                    "n_predict": 3})  # fmt: skip
    own = own_source(config.asked, [])
    ids = [item for item in own.asked if item not in own.barred][:2]
    chosen = items_of(OWN, config.asked).picked(ids)
    checked: list[Any] = []
    more = More(own.title, tuple(chosen.of), "known", lambda *given: checked.append(given),
                chosen.kinds)  # fmt: skip
    with sub_run(tmp_path / "more", MORE, config.model_dump(mode="json")) as directory:
        found = run_more(config, directory, Reporter(quiet=True), more)
    assert len(checked) == 1 and found["sets"]["fresh"]["labels"]["wrong"] == 2
    manifest = json.loads((tmp_path / "more" / "manifest.json").read_text())
    if labels == "execution":
        assert set(manifest["questions"]["fresh"]["groups"]) == {chosen.kinds[one] for one in ids}
    subject = Probing(run, manifest, {}, load_gates(), config, (), ())
    subject._require_same_labels()
    key = "sandbox" if labels == "execution" else "judge"
    other = {**manifest, "labels": {**manifest["labels"], key: "another"}}
    with pytest.raises(UserError, match=f"its answers were labelled with {key} another, and new"):
        replace(subject, manifest=other)._require_same_labels()
