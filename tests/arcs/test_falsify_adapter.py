"""``falsify --adapter``: base and edited model are asked after the gates, and read as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from arcs.arc3 import features, sidecar_command
from arcs.arc3.config import parse as parse_arc3
from arcs.arc3.edit import Edit, edit_of, fingerprint_of, name_of
from arcs.arc3.engine import Engine, opened
from arcs.arc3.labelling import score
from arcs.falsification import command, edited
from arcs.falsification.config import parse
from arcs.falsification.protocol import FILE
from arcs.falsification.registration import registered
from arcs.falsification.report import report
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.trained_on import KEY, describe
from backends import open_backend
from backends.interface import HiddenPoint, LoraConfig
from backends.lora import load_adapter
from evals.items.load import built_in
from evals.items.records import ShortAnswer
from evals.items.short_answer import Reading
from models.directory import ModelDirectory
from models.errors import UserError
from models.store import prepare
from tests.support.adapters import edit_json, live_adapter, saved
from tests.support.arc3_bench import SMALL
from tests.support.printed import printed
from tests.support.tiny_models import build_tiny
from tests.support.tolerances import tolerance

QUIET = Reporter(quiet=True)
IDS = [(5, 9, 300, 41, 77), (8, 200, 3)]


class Bench:
    """A tiny model in a cache of its own, and an adapter on it with an effect."""

    def __init__(self, root: Path) -> None:
        self.root, self.model = root, build_tiny("llama", root / "model")
        self.directory: ModelDirectory = prepare(str(self.model), cache=root / "cache")
        lora = LoraConfig(rank=2, alpha=4.0)
        weights = live_adapter(self.directory, lora)
        self.adapter = saved(root / "mine", self.directory, lora, weights)

    def flags(self, **more: Any) -> dict[str, Any]:
        return {
            "adapter": self.adapter, "model": str(self.model), "backend": "torch",
            "profile": "quick", "limit": 30, "n_predict": 3, **more,
        }  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def cache(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("THREEARC_CACHE", str(bench.root / "cache"))
    return bench


def states(bench: Bench, engine: str, edit: Edit | None) -> list[Any]:
    last = HiddenPoint(3, True)
    name = Engine(engine, "float32", "f32", 1)
    with opened(name, bench.directory, longest=16, reporter=QUIET, edit=edit) as model:
        return [model.hidden_states([ids], [len(ids) - 1], [last])[0, 0] for ids in IDS]


@pytest.mark.parametrize("engine", ["torch", "mlx", "gguf"])
def test_every_engine_reads_the_edited_model(cache: Bench, engine: str) -> None:
    if engine != "torch":
        pytest.importorskip({"mlx": "mlx.core", "gguf": "llama_cpp"}[engine])
    edit = edit_of(cache.adapter, cache.directory, gguf=engine == "gguf")
    found = states(cache, engine, edit)
    with open_backend("torch", cache.directory) as plain:
        point = HiddenPoint(3, True)
        base = [plain.hidden_states([i], [len(i) - 1], [point])[0, 0] for i in IDS]
        plain.attach_lora(*load_adapter(cache.adapter, cache.directory))
        wanted = [plain.hidden_states([i], [len(i) - 1], [point])[0, 0] for i in IDS]
    for mine, theirs, before in zip(found, wanted, base, strict=True):
        size = np.linalg.norm(theirs)
        assert np.linalg.norm(mine - theirs) / size < tolerance("h_last")
        assert np.linalg.norm(mine - before) / size > 100 * tolerance("h_last")


def test_an_edited_model_is_not_its_base(cache: Bench) -> None:
    edit = edit_of(cache.adapter, cache.directory, gguf=False)
    assert edit is not None
    assert name_of(cache.directory, edit) == f"{cache.directory.name} + mine"
    assert fingerprint_of(cache.directory, None) == cache.directory.fingerprint
    other = Edit(edit.path, "0" * 64)
    prints = {fingerprint_of(cache.directory, one) for one in (None, edit, other)}
    assert len(prints) == 3
    assert Edit(Path("/runs/arc1-a/adapter"), "").name == "arc1-a/adapter"


def test_gates_are_written_before_a_model_is_asked(
    cache: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, there = tmp_path / "out", []

    def stop(settings: Any, own: Any, reporter: Any) -> None:
        there.append((out / FILE).is_file())
        there.append(json.loads((out / "manifest.json").read_text())["gates_file_sha256"])
        own.discard_if_unused()
        raise UserError("stopped")

    monkeypatch.setattr(edited, "_run", stop)
    with pytest.raises(UserError, match="stopped"):
        command.start(cache.flags(), out=out, run=None, as_json=True)
    assert there[0] and len(there[1]) == 64
    assert not out.exists(), "a mistake left a run behind"


def test_what_is_chosen_for_an_adapter_is_exploratory() -> None:
    """The questions may have been asked before, with other gates or another seed."""
    source = edited.EditedRun.__new__(edited.EditedRun)
    for more, state in (({}, "gates fixed first"), ({"seed": 1}, "exploratory"),
                        ({"gates": Path("g")}, "exploratory")):  # fmt: skip
        config = parse({"adapter": Path("a"), **more})
        assert registered(source, config, load_gates())[0] == state


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": Path("x")}, "leave RUN out"),
        ({"features": Path("x")}, "leave --features out"),
        ({"untruncated": True}, "are for --features"),
        ({"adapter": None}, "--model is for --adapter, which is not given"),
        ({"limit": 3}, "--limit: Input should be greater than or equal to 10"),
        ({"backend": "jax"}, "--backend 'jax': give"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(changed: dict[str, Any], message: str) -> None:
    flags = {"adapter": Path("a"), "model": "tiny", **changed}
    with pytest.raises(UserError) as caught:
        parse(flags)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "what", ["nowhere", "of another model", "without effect", "trained on the questions"]
)
def test_an_adapter_that_does_not_fit_is_one_line_and_leaves_nothing(
    cache: Bench, tmp_path: Path, what: str
) -> None:
    adapter = tmp_path / "mine"
    if what != "nowhere":
        shutil.copytree(cache.adapter, adapter)
    if what == "of another model":
        edit_json(adapter / "threearc_adapter.json", base_fingerprint="0" * 64)
    if what == "without effect":
        edit_json(adapter / "adapter_config.json", lora_alpha=0)
    if what == "trained on the questions":
        record = describe([built_in("short_answers", ShortAnswer)[3].prompt], {})
        edit_json(adapter / "threearc_adapter.json", extra={KEY: record})
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        command.start(cache.flags(adapter=adapter), out=out, run=None, as_json=True)
    assert "\n" not in str(caught.value)
    assert str(adapter) in str(caught.value)
    assert ("1 of the 60 questions" in str(caught.value)) == (what == "trained on the questions")
    assert not out.exists()


# -- the whole, on the tiny model -----------------------------------------------------------------


def label_by_id(item: Any, text: str, ids: Any, *, truncated: bool) -> Any:
    """A tiny random model is never right: its answers are called right by their number."""
    from dataclasses import replace

    right = int(item.id.rpartition("-")[2]) % 7 in (0, 2, 3)
    said = score(item, text, ids, truncated=truncated)
    return replace(said, reading=Reading.RIGHT if right else Reading.WRONG, open=False)


@pytest.mark.slow
def test_the_protocol_runs_on_the_edited_models_own_answers(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREEARC_CACHE", str(bench.root / "cache"))
    monkeypatch.setattr("arcs.arc3.labelling.score", label_by_id)
    for config in ("arcs.arc3.config.Arc3Config", "arcs.falsification.config.FalsifyConfig"):
        monkeypatch.setattr(f"{config}.sizes", property(lambda _: SMALL))
    out = tmp_path / "out"
    command.start(bench.flags(), out=out, run=None, as_json=True)
    metrics = json.loads((out / "metrics.json").read_text())
    schema = Path(__file__).resolve().parents[2] / "docs" / "falsify-metrics.schema.json"
    jsonschema.validate(metrics, json.loads(schema.read_text()))
    assert metrics["registration"]["state"] == "gates fixed first"  # asked before, or not
    asked = out / edited.EDITED / "responses.jsonl"
    assert (out / FILE).stat().st_mtime_ns < asked.stat().st_mtime_ns
    edit = edit_of(bench.adapter, bench.directory, gguf=False)
    manifest = json.loads((out / edited.EDITED / "manifest.json").read_text())
    assert manifest["model"]["fingerprint"] == fingerprint_of(bench.directory, edit)
    assert manifest["model"]["base"]["fingerprint"] == bench.directory.fingerprint
    assert metrics["model"]["name"] == f"{bench.directory.name} + mine"
    assert metrics["base"]["model"]["fingerprint"] == bench.directory.fingerprint
    # rows are the edited model's states of its own answers
    found = features.load(out / edited.EDITED)["fresh"]
    arrays, end = found.arrays, int(found.arrays["lengths"][0])
    ids, place = arrays["ids"][:end].tolist(), int(arrays["positions"][0])
    for with_edit in (edit, None):
        name = Engine("torch", "float32", "f32")
        with opened(name, bench.directory, longest=99, reporter=QUIET, edit=with_edit) as model:
            row = model.hidden_states([ids], [place], [HiddenPoint(3, True)])[0, 0]
        apart = np.linalg.norm(row - arrays["h_last"][0]) / np.linalg.norm(row)
        assert (apart < tolerance("h_last")) == (with_edit is not None), apart
    theirs = features.load(out / edited.BASE)["fresh"].arrays["h_last"]
    assert np.abs(theirs - arrays["h_last"]).max() > 1e-2
    shown = printed(report(metrics))
    assert "the base, beside it" in shown
    assert f"{metrics['sets']['fresh']['right']}/30" in shown
    # a kill: the base was not asked yet, and of the steps only the first was there
    before = (out / "metrics.json").read_bytes()
    shutil.rmtree(out / edited.BASE)
    lines = (out / "steps.jsonl").read_text().splitlines(keepends=True)
    (out / "steps.jsonl").write_text(lines[0])
    (out / "metrics.json").unlink()
    command.start({}, out=None, run=out, as_json=True)
    assert (out / "metrics.json").read_bytes() == before
    with pytest.raises(UserError, match="--limit is 30 in this run"):
        command.start({"limit": 20}, out=None, run=out, as_json=True)
    # its sidecar answers with the adapter, and refuses without
    folder = out / edited.EDITED / "sidecar"
    if folder.is_dir():
        sidecar_command.answer("Is it?", folder, model=None, backend="torch", n_predict=2,
                               as_json=True)  # fmt: skip
        facts = json.loads((folder / "sidecar.json").read_text())
        (folder / "sidecar.json").write_text(json.dumps({**facts, "adapter": None}))
        with pytest.raises(UserError, match="whose states are not those"):
            sidecar_command.answer("Is it?", folder, model=None, backend="torch", n_predict=2,
                                   as_json=True)  # fmt: skip


def test_arc3_takes_the_adapter_by_itself() -> None:
    assert parse_arc3({"adapter": Path("a")}).adapter == Path("a")
    assert parse_arc3({}).adapter is None
