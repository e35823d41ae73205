"""``threearc eval``: its settings, and the real command on a tiny model, killed and continued."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from arcs import provenance
from arcs.arc1.problems import Item, in_samples
from arcs.escalation import next_budget, undecided, unfinished
from arcs.evaluate import command, pipeline
from arcs.evaluate.config import Condition, canonical, conditions_of, heads_of, names_of, parse
from arcs.evaluate.files import _share, check_adapter, files_of
from arcs.evaluate.metrics import ConditionResult, EvalMetrics
from arcs.evaluate.quality import quality
from arcs.evaluate.report import _merge_note, report
from arcs.instrument import (
    require_same_instrument,
    require_same_stage,
    settings_sha256,
)
from arcs.progress import Reporter
from arcs.report.kinds import view_of
from arcs.runs import RunDirectory
from backends.adapters.proof import Comparison, Proof
from backends.interface import Completion, Head, Prompt
from backends.llamacpp import quantise
from backends.lora import save_adapter
from evals.humaneval.problems import Problem
from models.errors import UserError
from tests.support.eval_bench import LORA, Bench
from tests.support.printed import printed, widened
from tests.support.report_links import check_counts

DOCS = Path(__file__).resolve().parents[2] / "docs"
EVERY_CONDITION = tuple(ConditionResult.model_fields)


# Settings ----------------------------------------------------------------------------------


def test_heads_are_read_exactly() -> None:
    assert heads_of("L16H5=0.5, L3H1=0") == {Head(16, 5): 0.5, Head(3, 1): 0.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tempers": ("L1H2",)}, "give layer, head and factor as in L16H5=0.5"),
        ({"tempers": ("L1H2=0,L1H2=1",)}, "L1H2 is given twice"),
        (
            {"tempers": ("L03H1=0.50, L1H2=-0", "L1H2=0,L3H1=0.5")},
            "--temper: L1H2=0,L3H1=0.5 is given twice",
        ),
        ({"tempers": ("L1H2=1" + "0" * 400,)}, "--temper: .* is too large a factor"),
        ({"quantisations": ("q3",)}, "--quant 'q3': give original, f16, "),
        ({"quantisations": ("",)}, "--quant '': give original, f16, "),
        ({"quantisations": ()}, "^--quant: give at least one"),
        ({"quantisations": ("f16", "f16")}, "--quant: f16 is given twice"),
        ({"n_predict": (512, 256)}, "n_predict must rise"),
        ({"escalate": 1024}, "^--escalate 1024 is not above the largest n_predict 1024"),
        (
            {"adapter_mode": "merged", "quantisations": ("original",)},
            "a merged model has no original GGUF",
        ),
        ({"adapters": ("a/x", "a/x")}, "^--adapter: a/x is given twice"),
        ({"colour": "red"}, "--colour"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/a/adapter", "runs/b/adapter"], ["a/adapter", "b/adapter"]),
        (["/r/a/x/adapter", "/r/b/x/adapter", "/r/c"], ["a/x/adapter", "b/x/adapter", "c"]),
        (["adapter", "b/adapter"], ["adapter", "b/adapter"]),
        ([], []),
    ],
)
def test_adapters_are_called_what_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert names_of([Path(path) for path in paths]) == names
    found = conditions_of(parse({"adapters": tuple(paths)}))
    assert [one.name for one in found] == ["base", *names]
    assert len({one.slug for one in found}) == len(found)
    assert not any("/" in one.slug for one in found)


def test_settings_of_heads_share_a_control_and_adapters_do_not() -> None:
    config = parse({"adapters": ("runs/a",), "tempers": ("L0H0=0.5", "L2H1=0")})
    found = {one.name: one.against for one in conditions_of(config)}
    assert found == {
        "base": "base",
        "a": "base",
        "control": "base",
        "L0H0=0.5": "control",
        "L2H1=0": "control",
    }
    with pytest.raises(UserError, match="two conditions are called 'control'"):
        conditions_of(parse({"adapters": ("x/control",), "tempers": ("L0H0=0.5",)}))


@pytest.mark.parametrize("text", ["L0H0=0.0000001", "L2H1=-1.5", "L0H0=100,L10H0=0.1"])
def test_a_setting_in_its_one_spelling_reads_back_unchanged(text: str) -> None:
    assert canonical(text) == text


def test_no_two_conditions_share_a_file_name() -> None:
    """Also on file systems for which A and a are one, and for names that differ beyond ASCII."""
    names = ("a b", "a_b", "A_b", "Base", "é", "è", "x" * 200, "x" * 201)
    config = parse({"adapters": [f"/runs/{one}" for one in names], "tempers": ["L0H0=0"]})
    slugs = [one.slug for one in conditions_of(config)]
    assert len({slug.lower() for slug in slugs}) == len(names) + 3
    assert slugs[0] == "base" and "control" in slugs
    assert all(slug.isascii() and len(slug) < 80 and "/" not in slug for slug in slugs)
    # an adapter may be called like the control where there is none; its file stays its own
    (_, edit) = conditions_of(parse({"adapters": ["/runs/control"]}))
    assert edit.slug != "control"


def test_a_mistake_in_continuing_leaves_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a run begun by the same call, with nothing in it, is removed."""

    def fail(*_: object) -> None:
        raise UserError("the model is not there")

    monkeypatch.setattr(pipeline, "run_eval", fail)
    new, begun = tmp_path / "new", tmp_path / "begun"
    with pytest.raises(UserError, match="the model is not there"):
        command.start({}, out=new, run=None, as_json=False)
    assert not new.exists()
    manifest = provenance.first_manifest("eval", parse({}).model_dump(mode="json"), [])
    RunDirectory.create(begun, manifest).close()
    with pytest.raises(UserError, match="the model is not there"):
        command.start({}, out=None, run=begun, as_json=False)
    assert (begun / "manifest.json").exists()
    with pytest.raises(UserError, match="--quant is q8_0 in this run, not f16,q8_0"):
        command.start({"quantisations": ("f16", "q8_0")}, out=None, run=begun, as_json=False)


def test_budgets_double_up_to_the_cap() -> None:
    assert [next_budget(n, 4000) for n in (1024, 2048, 3000, 4000)] == [2048, 4000, 4000, None]


def test_loops_and_finished_answers_are_not_continued() -> None:
    def done(item: str, ids: tuple[int, ...], reason: Any) -> Completion:
        return Completion(item, (1,), ids, reason, 0.0)

    loop = (7, 8) * 40
    new = tuple(range(80))
    found = {
        "loop": done("loop", loop, "length"),
        "new": done("new", new, "length"),
        "ended": done("ended", new, "stop"),
    }
    assert unfinished(found) == ["new"]
    assert not undecided([])


@pytest.mark.parametrize(
    ("reasons", "goes_on"),
    [
        (("truncated",), True),
        (("truncated", "truncation_artifact"), True),
        (("truncated", "train_test_overlap"), False),  # nothing mends it
        (("instrument_differs", "truncated"), False),
        (("underpowered",), False),
    ],
)
def test_only_a_claim_that_texts_can_mend_is_waited_for(
    reasons: tuple[str, ...], goes_on: bool
) -> None:
    claim = SimpleNamespace(claim=SimpleNamespace(reasons=reasons))
    assert undecided([claim]) is goes_on  # type: ignore[list-item]


def test_a_task_that_is_called_like_a_sample_is_refused() -> None:
    def item(name: str) -> Item:
        problem = Problem(name, "p", "f", "s", "t")
        return Item(problem, Prompt(name, (1,)), False, "sha")

    items = [item("t"), item("t#1")]
    assert len(in_samples(items, 1)) == 2
    with pytest.raises(UserError, match=r"--samples 2: 't#1' is a task's id"):
        in_samples(items, 2)


def test_quality_is_the_kl_and_agreement_of_known_logits() -> None:
    one = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32))
    two = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]], np.float32))
    found = quality([(one + 3.0, two - 1.0)])
    assert found.kl == pytest.approx((0.5 * np.log(2) - 0.25 * np.log(2)) / 2, abs=1e-6)
    assert (found.same_top, found.positions, found.texts) == (0.5, 2, 1)


def test_quality_holds_the_logits_of_one_text_at_a_time() -> None:
    alive: list[weakref.ref[Any]] = []

    def pairs() -> Iterator[tuple[Any, Any]]:
        for _ in range(3):
            assert all(one() is None for one in alive), "an earlier text's logits are still held"
            made = [np.zeros((70, 3), np.float32), np.zeros((70, 3), np.float32)]
            alive[:] = map(weakref.ref, made)
            yield made.pop(0), made.pop(0)

    found = quality(pairs())
    assert (found.kl, found.same_top, found.positions, found.texts) == (0.0, 1.0, 210, 3)


ENGINE = {"threads": 2, "offloaded_layers": 0, "context": 40, "gguf_sha256": "a"}


def test_stages_of_an_arm_must_agree_but_for_their_room() -> None:
    plain = settings_sha256("base", [ENGINE])
    larger = {**ENGINE, "context": 80}
    assert settings_sha256("edit", [{**ENGINE, "gguf_sha256": "b"}]) == plain
    assert settings_sha256("base", [ENGINE, larger]) == plain
    assert settings_sha256("edit", [{**ENGINE, "threads": 1}]) != plain
    assert settings_sha256("edit", [larger]) != plain
    moved = [ENGINE, {**larger, "threads": 1}]
    assert settings_sha256("base", moved) != plain
    # both arms moved to the same other machine: each is a mixture of two instruments
    assert settings_sha256("base", moved) != settings_sha256("edit", moved)
    # within an arm the weights are one as well
    assert settings_sha256("base", [ENGINE, {**larger, "gguf_sha256": "b"}]) != plain


def test_another_instrument_stops_before_a_decode() -> None:
    run = Path("runs/x")
    require_same_stage(run, "edit", ENGINE, {**ENGINE, "context": 80})
    with pytest.raises(UserError, match="edit was begun with threads 2 and would go on with 1"):
        require_same_stage(run, "edit", ENGINE, {**ENGINE, "threads": 1})
    require_same_instrument(run, ("base", "edit"), ENGINE, {**ENGINE, "gguf_sha256": "b"})
    with pytest.raises(UserError, match="base was decoded with offloaded_layers 0, and edit"):
        require_same_instrument(
            run, ("base", "edit"), ENGINE, {**ENGINE, "offloaded_layers": 9}
        )  # fmt: skip


def test_what_killed_runs_left_is_removed_before_new_copies_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".q8_0.a.merged.x1y2").mkdir()
    (tmp_path / ".q8_0.a.merged.x1y2" / "model.safetensors").write_text("large")
    (tmp_path / "q8_0.a.merged").mkdir()
    for name in ("0123-export1-f16.gguf", "q8_0.L0H0=0.gguf", ".a.adapter.gguf.x.part"):
        (tmp_path / name).write_text("large")
    (tmp_path / "a.adapter.gguf").write_text("small")
    monkeypatch.setattr(quantise, "evaluation_gguf", lambda *_, **__: Path("base.gguf"))
    nothing: Any = None
    config = parse({})
    with files_of(Condition("base"), "q8_0", config, nothing, (), tmp_path, Reporter()) as files:
        assert files.gguf == Path("base.gguf")
        assert [one.name for one in tmp_path.iterdir()] == ["a.adapter.gguf"]


def test_the_report_says_what_a_merge_cost() -> None:
    merge = {"status": "proven", "reason": None, "dtype": "bfloat16", "rounding_share": 0.05}
    assert _merge_note(merge) == ""
    assert "to bfloat16, before quantising, moves the logits by up to 23% of what" in _merge_note(
        {**merge, "rounding_share": 0.23}
    )
    assert _merge_note(
        {**merge, "status": "unproven", "reason": "torch is not installed", "rounding_share": None}
    ) == ("the merge is unproven: torch is not installed")


def test_the_rounding_of_a_merge_is_a_share_of_the_adapters_effect() -> None:
    def merged(dtype: Any, effect: float | None, *differences: float) -> Any:
        compared = tuple(
            Comparison("x", ("torch", "transformers"), one, 1.0, "") for one in differences
        )
        return SimpleNamespace(dtype=dtype, proof=Proof("proven", None, effect, 1, compared))

    assert _share(merged("bfloat16", 0.4, 1e-6, 1e-6, 0.1)) == pytest.approx(0.25)
    assert _share(merged("float32", 0.4, 1e-6, 1e-6)) == 0.0
    assert _share(merged("bfloat16", None)) is None


# The command ---------------------------------------------------------------------------------


def slug(name: str) -> str:
    return Condition(name, adapter=Path(name)).slug


SCALED = Condition("L0H1=0.3,L2H0=0", scales={}).slug


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    patch = pytest.MonkeyPatch()
    patch.setenv("THREEARC_CACHE", os.environ.get("THREEARC_CACHE", ""))
    made = Bench(tmp_path_factory.mktemp("eval"))
    patch.undo()
    return made


@pytest.fixture(scope="module")
def metrics(bench: Bench) -> dict[str, Any]:
    done = bench.run(
        bench.fresh(
            "all", "--adapter", str(bench.root / "edit"), "--temper", "L0H1=0.3,L2H0=0",
            "--quant", "f16,q8_0", "--n-predict", "6,12",
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_condition_stands_beside_what_it_is_an_edit_of(
    bench: Bench, metrics: dict[str, Any]
) -> None:
    for kind in ("f16", "q8_0"):
        found = metrics["quantisations"][kind]
        assert set(found) == {"base", "edit", "control", "L0H1=0.3,L2H0=0"}
        assert found["edit"]["against"] == "base"
        assert found["L0H1=0.3,L2H0=0"]["against"] == "control"
        assert found["base"]["comparison"] is None and found["control"]["comparison"] is None
        for one in found.values():
            assert set(one["budgets"]) == {"6", "12"}
            assert one["budgets"]["12"]["n_items"] == 3
    base, edit, scaled = (
        bench.ids("all", f"q8_0.{arm}", 12) for arm in ("base", slug("edit"), SCALED)
    )
    assert base != edit and base != scaled
    moved = metrics["quality_against_f16"]
    assert set(moved) == {"q8_0"} and 0 < moved["q8_0"]["kl"] < 0.1
    assert metrics["made_with"]["adapters"]["edit"]["mode"] == "runtime"
    assert not [
        path for path in (bench.root / "all" / "files").glob("*.gguf") if "L0H1" in path.name
    ]


def test_every_number_of_the_report_leads_to_its_items(
    bench: Bench, metrics: dict[str, Any]
) -> None:
    assert (bench.root / "all" / "report.html").exists()
    view = view_of(bench.root / "all")
    assert check_counts(view) > 10
    edits = [name for name, one in metrics["quantisations"]["q8_0"].items() if one["comparison"]]
    assert len(view.claims) == len(edits) * len(metrics["quantisations"])
    assert view.items[0].answers[0].condition.startswith("base")


def test_the_schema_in_the_docs_is_the_schema_of_the_code_and_of_a_result(
    metrics: dict[str, Any],
) -> None:
    schema = EvalMetrics.model_json_schema()
    assert json.loads((DOCS / "eval-metrics.schema.json").read_text()) == schema
    assert EvalMetrics.model_validate(metrics).model_dump(mode="json") == metrics
    said = (DOCS / "eval.md").read_text()
    for name in (*schema["properties"], *EVERY_CONDITION, *metrics["made_with"]):
        key = "engine." if name.startswith("engine.") else name
        assert f"`{key}" in said, f"docs/eval.md does not say what {key} is"


def test_the_table_is_whole_on_an_ordinary_terminal(metrics: dict[str, Any]) -> None:
    text = printed(report(metrics))
    assert "against control" in text and "INCONCLUSIVE" in text and "KL to F16" in text
    wide = widened(metrics, count=1234, number=-0.98765)
    printed(report({**wide, **{key: metrics[key] for key in ("n_predict", "config")}}))


def test_merged_is_another_model_than_runtime(bench: Bench) -> None:
    done = bench.call_here(
        bench.fresh(
            "merged", "--adapter", str(bench.root / "edit"), "--adapter-mode", "merged",
            "--quant", "q8_0", "--n-predict", "12",
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads((bench.root / "merged" / "manifest.json").read_text())
    engine = made[f"engine.q8_0.{slug('edit')}.12"]
    merge = json.loads(done.stdout)["quantisations"]["q8_0"]["edit"]["merge"]
    assert merge["status"] == "proven" and merge["effect"] > 0.01 and merge["comparisons"]
    assert merge["rounding_share"] == 0.0 and merge["dtype"] == "float32"  # as the tiny base
    assert merge == made[f"merge.q8_0.{slug('edit')}"]
    assert "merged_fingerprint" in engine and engine["adapter_sha256"] is None
    assert bench.ids("merged", f"q8_0.{slug('edit')}", 12) != bench.ids("merged", "q8_0.base", 12)
    assert list((bench.root / "merged" / "files").iterdir()) == []


@pytest.fixture(scope="module")
def edit(bench: Bench) -> tuple[str, ...]:
    """Six answers, all unfinished: were they to pass in one arm only, it would be significant."""
    return ("--adapter", str(bench.root / "edit"), "--quant", "q8_0", "--limit", "6")


@pytest.fixture(scope="module")
def steps(bench: Bench, edit: tuple[str, ...]) -> dict[str, Any]:
    done = bench.call_here(bench.fresh("steps", *edit, "--n-predict", "10", "--escalate", "40"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_escalation_gives_what_the_larger_budget_gives_at_once(
    bench: Bench, edit: tuple[str, ...], steps: dict[str, Any]
) -> None:
    """Every stored id and outcome at 40 tokens, of answers continued from 10 by way of 20."""
    assert steps["escalated"] == [20, 40] and steps["n_predict"] == [10, 20, 40]
    once = bench.call_here(bench.fresh("once", *edit, "--n-predict", "10,20,40"))
    assert once.returncode == 0, once.stderr
    expected = json.loads(once.stdout)
    for arm in ("q8_0.base", f"q8_0.{slug('edit')}"):
        whole = bench.ids("once", arm, 40)
        continued = bench.ids("steps", arm, 40)
        assert continued and all(whole[item] == ids for item, ids in continued.items())
    for name in ("base", "edit"):
        for n in ("10", "20", "40"):
            one, other = (
                document["quantisations"]["q8_0"][name]["budgets"][n]
                for document in (steps, expected)
            )
            kept = ("passed", "truncated", "unfinished", "outcomes")
            assert {key: one[key] for key in kept} == {key: other[key] for key in kept}


def test_a_killed_run_continues_to_the_same_metrics(bench: Bench, steps: dict[str, Any]) -> None:
    folder = bench.root / "killed"
    shutil.copytree(bench.root / "steps", folder)
    # what a kill in the last stage leaves: whole lines and a torn one, no result
    stage = folder / f"q8_0.{slug('edit')}.40.completions.jsonl"
    lines = stage.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    stage.write_bytes(lines[0] + lines[1][:20])
    (folder / "metrics.json").unlink()
    (folder / "items.jsonl").unlink()
    (folder / "files" / ".q8_0.edit.merged.a1b2").mkdir()
    (folder / "files" / "q8_0.gone.gguf").write_text("left by the kill")
    phase = f"decode q8_0.{slug('edit')} to 40"

    def counted() -> int:
        timing = json.loads((folder / "timing.json").read_text())
        return int(timing["phases"][phase]["counts"]["tokens"])

    earlier = counted()
    again = bench.call_here(bench.command("--run", str(folder), "--json"))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == steps
    assert stage.read_bytes() == (bench.root / "steps" / stage.name).read_bytes()
    assert [one.name for one in (folder / "files").iterdir()] == [f"{slug('edit')}.adapter.gguf"]
    # counted: what this call generated, without the 20 ids of each answer that it read again
    redone = [json.loads(line)["ids"] for line in lines[1:]]
    assert counted() - earlier == sum(len(ids) - 20 for ids in redone) > 0


def test_a_finished_run_given_again_says_the_same_and_is_tidied(
    bench: Bench, steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.root / "finished"
    shutil.copytree(bench.root / "steps", folder)
    (folder / "files" / "q8_0.gone.gguf").write_text("left by a kill after the last decode")
    before = (folder / "metrics.json").read_bytes()
    monkeypatch.setenv("THREEARC_CACHE", str(bench.cache))
    command.start({}, out=None, run=folder, as_json=True)
    assert (folder / "metrics.json").read_bytes() == before
    assert [one.name for one in (folder / "files").iterdir()] == [f"{slug('edit')}.adapter.gguf"]


@pytest.mark.parametrize(
    ("begun", "message"),
    [
        # both arms' first stage was decoded elsewhere, and their answers would be continued here
        (("base.10", "EDIT.10"), "begun with threads 7 and would go on"),
        # the base was decoded elsewhere, and its edit would be decoded here
        (("base.10",), "q8_0.base was decoded with threads 7, and q8_0.edit"),
    ],
)
def test_a_run_moved_to_another_machine_stops_before_it_decodes(
    bench: Bench,
    steps: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    begun: tuple[str, ...],
    message: str,
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(bench.root / "steps", folder)
    begun = tuple("q8_0." + one.replace("EDIT", slug("edit")) for one in begun)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in [key for key in manifest if key.startswith("engine.")]:
        if key.removeprefix("engine.") in begun:
            manifest[key]["threads"] = 7
        else:
            del manifest[key]
    path.write_text(json.dumps(manifest))
    left = {f"{one}.completions.jsonl" for one in begun}
    for stage in folder.glob("*.completions.jsonl"):
        if stage.name not in left:
            stage.unlink()
    monkeypatch.setenv("THREEARC_CACHE", str(bench.cache))
    with pytest.raises(UserError, match=message):
        command.start({}, out=None, run=folder, as_json=True)
    assert {one.name for one in folder.glob("*.completions.jsonl")} == left


def test_wrong_adapters_are_found_before_anything_is_decoded(bench: Bench, tmp_path: Path) -> None:
    for mode in ("runtime", "merged"):
        check_adapter(bench.root / "edit", bench.directory, mode)
        with pytest.raises(UserError, match="lora_alpha is 0"):
            check_adapter(bench.root / "zero", bench.directory, mode)
        other = {
            name: value[:, :-1] if name.endswith("lora_A") else value
            for name, value in bench.weights.items()
        }
        save_adapter(tmp_path / mode, LORA, other, bench.directory, {})
        with pytest.raises(UserError, match="for model: "):
            check_adapter(tmp_path / mode, bench.directory, mode)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--temper", "L9H0=0.5"), "layer 9"),
        (("--temper", "L0H99=0.5"), "no head 99"),
        (("--adapter", "nowhere"), "nowhere"),
        (("--adapter", "zero"), "lora_alpha is 0"),
        (("--quant", "original"), "was not made from a GGUF file"),
        (("--escalate", "9000"), "lower --n-predict or --escalate"),
        (("--n-predict", "12,x"), "whole numbers with commas"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(
    bench: Bench, more: tuple[str, ...], message: str
) -> None:
    done = bench.call_here(bench.fresh("mistake", "--n-predict", "6", *more), cwd=bench.root)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert not (bench.root / "mistake").exists()
