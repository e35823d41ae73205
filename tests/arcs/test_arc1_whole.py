"""Arc 1 whole: recipes, arms, evaluations inside the run, controls, the table."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arcs.arc1 import evaluations, seeds
from arcs.arc1.command import mcas_lines
from arcs.arc1.config import resolve
from arcs.arc1.controls import _passes
from arcs.arc1.metrics import Arc1Metrics
from arcs.arc1.profiles import EVALUATIONS, NO_JUDGE
from arcs.arc1.recipes import PLACEBO, PLANTED, recipes
from arcs.arc1.summary import HUMANEVAL, own_rows, paper_rows, spread
from arcs.arc1.table import render
from arcs.arc1.think_mask import think_span, without_thoughts
from arcs.arc1.thinking import Thought, compression
from arcs.arc1.training import _held_out, records_of
from arcs.arc1.view import view
from arcs.gates import load_gates
from arcs.judging.opening import JudgeOptions
from arcs.measure.meter_claims import meter_claim
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import RunDirectory
from arcs.subruns import sub_run
from backends.training import TrainingExample
from evals.meter_scores import AxisScore, AxisShift
from evals.statistics.rates import Interval, wilson
from models.errors import UserError
from models.registry import find
from tests.support.arc1_bench import Bench
from tests.support.printed import printed_by
from tests.support.report_links import check_counts

# -- recipes ---------------------------------------------------------------------------------------


def test_every_recipe_is_a_possible_run_and_flags_win_over_it() -> None:
    for name, given in recipes().items():
        assert resolve({"recipe": name}).recipe == name
        assert "method" in given, name  # else the profile's DPO would follow an ablation of SFT
    chosen = resolve({"recipe": "paper-chef", "rank": 8, "profile": "quick"})
    assert (chosen.rank, chosen.alpha, chosen.epochs, chosen.limit) == (8, 128.0, 3, 20)
    assert chosen.dpo().train.learning_rate == 5e-6
    # the paper's V3: alpha / sqrt(r) = 0.125 with rank-stabilised scaling
    assert resolve({"recipe": "rslora"}).lora().scale == pytest.approx(0.125)
    with pytest.raises(UserError, match="--recipe 'none-such': unknown"):
        resolve({"recipe": "none-such"})


def test_the_profile_gives_way_to_own_records_and_adapters_but_not_to_a_method() -> None:
    assert resolve({}).method == "sft+dpo"
    assert resolve({"data": ("mine.jsonl",)}).method == "sft"  # no pairs of ours on their records
    assert resolve({"data": ("mine.jsonl",), "pairs": ("p.jsonl",)}).method == "sft+dpo"
    assert resolve({"data": ("mine.jsonl",), "method": "sft+dpo"}).method == "sft+dpo"
    assert resolve({"adapter": "lora"}).trains == ()
    assert resolve({"evaluations": "all"}).evaluations == EVALUATIONS
    assert resolve({"evaluations": ()}).evaluations == ()


def test_hours_of_labels_by_a_judge_below_its_bar_are_spent_only_where_they_are_asked_for() -> None:
    for profile in ("standard", "paper"):
        assert "mcas" not in resolve({"profile": profile}).evaluations
        assert "mcas" not in resolve({"profile": profile, "judge": "lexical"}).evaluations
        assert resolve({"profile": profile, "judge": "gguf:big"}).evaluations == EVALUATIONS
    assert resolve({"profile": "quick"}).evaluations == EVALUATIONS  # ten references, three items
    # a recipe's own evaluations stay what they are
    assert resolve({"recipe": PLANTED, "judge": "gguf"}).evaluations == ("meter", "chef")


def test_evaluations_are_in_the_dtype_of_the_run_and_the_judges_options_reach_them(
    tmp_path: Path,
) -> None:
    asked = {"dtype": "bfloat16", "judge": "api:http://h/v1#m", "judge_max_tokens": 900,
             "judge_references": 20}  # fmt: skip
    config = resolve(asked)
    root = tmp_path / "run"
    paid = root / "seeds" / "1" / "evaluations" / "chef"
    paid.mkdir(parents=True)
    # paid with prices, and, in a sitting that had none, at 2 dollars a million tokens read
    unpriced = {"unpriced_input_tokens": 50_000, "unpriced_output_tokens": 0}
    phases = {"judge base": {"counts": {"usd": 0.15, **unpriced}}, "prepare": {"counts": {}}}
    (paid / "timing.json").write_text(json.dumps({"phases": phases}))
    prices = {"usd_per_million_input": 2.0, "usd_per_million_output": 9.0}
    options = JudgeOptions(budget_usd=1.0, tries=7, **prices)
    asking = evaluations.Asking(options, tmp_path / "labels")
    for name in ("chef", "mcas"):
        settings = evaluations.measure_config(name, config, "torch", ())
        assert settings.dtype == "bfloat16" and settings.judge_max_tokens == 900
        found = asking.of(settings, config, root)
        assert found.options == JudgeOptions(max_tokens=900, budget_usd=0.75, tries=7, **prices)
        assert (found.references, found.cache) == (20, tmp_path / "labels")
    # the judge that stands in for none is not asked as the one that was not named
    own = resolve({"profile": "quick"})
    settings = evaluations.measure_config("mcas", own, "torch", ())
    assert asking.of(settings, own, root).options == JudgeOptions()
    assert settings.dtype == "float32"


def test_a_judges_cap_is_kept_with_the_run_and_flags_change_it(tmp_path: Path) -> None:
    first = JudgeOptions(budget_usd=1.0, usd_per_million_input=2.0, usd_per_million_output=3.0,
                         tries=7)  # fmt: skip
    with RunDirectory.create(tmp_path / "run", {}) as run:
        evaluations.keep_paying(run, JudgeOptions())
        assert evaluations.paying(run.path, JudgeOptions(tries=2)) == JudgeOptions(tries=2)
        evaluations.keep_paying(run, first)
        again = evaluations.paying(run.path, None)
        assert again == replace(
            first, tries=None
        )  # how it is asked may differ, what it may cost not
        more = evaluations.paying(run.path, JudgeOptions(budget_usd=5.0))
        assert more == replace(again, budget_usd=5.0)
        evaluations.keep_paying(run, more)
        assert evaluations.paying(run.path, None).budget_usd == 5.0
        run.discard_if_unused()  # a cap is nothing that was made
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("labels", "reference", "again"),
    [({"ok": 4}, {"ok": 9}, False), ({"ok": 3, "error": 1}, {"ok": 9}, True),
     ({"ok": 4}, {"ok": 8, "error": 1}, True), ({"ok": 3, "missing": 1}, {"ok": 9}, False)],
)  # fmt: skip
def test_a_finished_measurement_that_lacks_labels_is_gone_on_with(
    labels: dict[str, int], reference: dict[str, int], again: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from arcs.measure import pipeline

    config, prepared = resolve({"judge": "api:http://h/v1#m"}), SimpleNamespace(backend="torch")
    stored = {
        "n_items": 4, "conditions": {"base": {"labels": {"delivery": {"statuses": labels}}}},
        "judge": {"validity": {"delivery": {"statuses": reference}}},
    }  # fmt: skip
    asked: list[str] = []
    monkeypatch.setattr(pipeline, "run_measure", lambda config, *_: asked.append(config.instrument))
    settings = evaluations.measure_config("chef", config, "torch", ()).model_dump(mode="json")
    with RunDirectory.create(tmp_path / "run", {}) as run:
        with sub_run(run.path / "evaluations" / "chef", "measure", settings) as own:
            own.write_json("metrics.json", stored)
        evaluations._measured("chef", config, run, prepared, (), Reporter(quiet=True), None,
                              evaluations.Asking())  # type: ignore[arg-type]  # fmt: skip
    assert bool(asked) is again
    assert evaluations.owes_labels({**stored, "judge": None, "conditions": {"base": {}}}) is False


def test_a_further_seed_that_lacks_labels_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "take_base", lambda *_: None)
    monkeypatch.setattr(Arc1Metrics, "model_validate", lambda found: found)
    config, asked = resolve({"seeds": 3}), []
    with RunDirectory.create(tmp_path / "run", {}) as run:
        for seed, statuses in ((1, {"ok": 2}), (2, {"ok": 1, "error": 1})):
            own = config.model_copy(update={"seed": seed, "seeds": 1, "planted": False})
            made = run.path / "seeds" / str(seed)
            with sub_run(made, "arc1", own.model_dump(mode="json")) as one:
                labels = {"labels": {"delivery": {"statuses": statuses}}}
                found = {"conditions": {"base": labels}, "judge": None}
                one.write_json("metrics.json", {"evaluations": {"chef": found}})
        seeds.repeat(config, run, Reporter(quiet=True), lambda own, *_: asked.append(own.seed))
    assert asked == [2]


def test_a_judge_that_is_paid_for_is_validated_on_all_references() -> None:
    api = {"profile": "quick", "judge": "api:http://h/v1#m"}
    assert resolve(api).judge_references is None
    assert resolve({**api, "judge_references": 70}).judge_references == 70
    assert resolve({"profile": "quick", "judge": "gguf:big"}).judge_references == 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "name one with --judge"),
        ({"judge": "lexical"}, "the lexical judge cannot apply it"),
        ({"judge": "gguf"}, "as it is expected to; with so many items its labels take hours"),
        ({"judge": "gguf:other"}, None),
        ({"judge": "gguf:other", "evaluations": NO_JUDGE}, None),
        ({"profile": "quick"}, "as it is expected to"),
    ],
)
def test_what_is_said_of_mcas_fits_the_judge_that_was_named(
    given: dict[str, Any], said: str | None
) -> None:
    lines = mcas_lines(resolve(given))
    assert len(lines) == (said is not None) and all(str(said) in line for line in lines)
    assert ("hours" in "".join(lines)) == ("hours" in (said or ""))


def test_held_out_rows_are_spread_over_all_of_them() -> None:
    config = resolve({"profile": "quick"})
    rows: Any = [SimpleNamespace(split="held_out", id=i) for i in range(24)]
    assert [one.id for one in _held_out(config, rows)] == [0, 3, 6, 9, 12, 15, 18, 21]
    assert len(_held_out(resolve({}), rows)) == 24


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"planted": True, "evaluations": ("chef",)}, "planted: the meter"),
        ({"planted": True, "recipe": "placebo"}, "not itself a control"),
        ({"judge": "lexical", "profile": "quick"}, "cannot apply mcas"),
        ({"judge": "oracle"}, "--judge"),
        ({"judge": "gguf", "evaluations": ("meter",)}, "no evaluation that a judge labels"),
        ({"evaluations": ("meter", "meter")}, "each once"),
        ({"evaluations": ("taste",)}, "evaluations"),
        ({"evaluation_n_predict": (8, 4)}, "n_predict must rise"),
        ({"method": "dpo", "mask_think": True}, "mask-think"),
    ],
)
def test_what_would_have_no_effect_is_refused_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve(given)
    assert "\n" not in str(caught.value)


def test_planted_and_placebo_see_the_same_prompts_in_the_same_order_and_one_recipe() -> None:
    planted, placebo = (resolve({"recipe": name}) for name in (PLANTED, PLACEBO))
    first, second = records_of(planted), records_of(placebo)
    assert [(one.prompt, one.split) for one in first] == [(o.prompt, o.split) for o in second]
    assert all(one.response != other.response for one, other in zip(first, second, strict=True))
    assert planted.training() == placebo.training() and planted.lora() == placebo.lora()


@pytest.mark.parametrize(
    ("asked", "begun", "refused"),
    [(("meter",), False, True), (("small",), False, False), ((), False, False),
     (("meter",), True, False)],
)  # fmt: skip
def test_evaluations_that_do_not_fit_are_refused_before_training_and_not_later(
    monkeypatch: pytest.MonkeyPatch, asked: Any, begun: bool, refused: bool
) -> None:
    monkeypatch.setattr(evaluations, "free_memory", lambda _: 3_999)
    monkeypatch.setattr(evaluations, "model_size", lambda _: SimpleNamespace(parameters=1_000))
    prepared: Any = SimpleNamespace(
        encoder=SimpleNamespace(template="t"), directory=SimpleNamespace(name="m"), backend="torch"
    )
    run: Any = SimpleNamespace(manifest=lambda: {"evaluation": {}} if begun else {})
    ask = (resolve({"evaluations": asked}), run, prepared, Reporter(quiet=True))
    if not refused:
        evaluations.require_evaluable(*ask)
        return
    with pytest.raises(UserError, match="in float32 and"):
        evaluations.require_evaluable(*ask)


# -- the meter's claim -----------------------------------------------------------------------------


def shift(mean: float, low: float, high: float, p: float) -> AxisShift:
    return AxisShift(50, mean, Interval(low, high, 0.95), 0.3, 40, 0, p, p)


def test_a_shift_matters_from_a_fifth_of_the_bases_own_spread() -> None:
    gates = load_gates()
    base = AxisScore(50, -0.1, None, 0.4, 0.5, 9, 9)  # a shift that matters: 0.08

    def verdict(found: AxisShift, **more: bool) -> tuple[str, list[str]]:
        claim = meter_claim("hedging", base, found, gates, **more)
        return claim["verdict"], claim["reasons"]

    assert verdict(shift(0.09, 0.05, 0.13, 1e-4)) == ("SUPPORTED", ["effect_shown"])
    assert verdict(shift(0.07, 0.05, 0.09, 1e-4)) == ("INCONCLUSIVE", ["underpowered"])
    assert verdict(shift(0.05, 0.03, 0.07, 1e-4)) == ("REFUTED", ["effect_excluded"])
    assert verdict(shift(0.09, -0.1, 0.3, 0.2)) == ("INCONCLUSIVE", ["underpowered"])
    assert verdict(shift(-0.09, -0.2, -0.05, 1e-4)) == ("SUPPORTED", ["effect_shown"])
    seen = verdict(shift(0.09, 0.05, 0.13, 1e-4), trained_on_test=True)
    assert seen == ("INVALID", ["train_test_overlap"])
    few = replace(shift(0.01, 0.0, 0.02, 1.0), n=5)  # no five items can have p < 0.05
    assert verdict(few) == ("INCONCLUSIVE", ["underpowered"])
    assert verdict(replace(few, n=6)) == ("REFUTED", ["effect_excluded"])
    alone = replace(base, deviation=None)
    assert meter_claim("hedging", alone, shift(1, 0.9, 1.1, 0), gates)["verdict"] == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("planted", "placebo", "passes"),
    [
        (("SUPPORTED", 0.2), ("REFUTED", 0.0), True),
        (("SUPPORTED", 0.2), ("INCONCLUSIVE", 0.1), True),
        (("SUPPORTED", 0.2), ("SUPPORTED", 0.2), False),
        (("SUPPORTED", 0.2), ("SUPPORTED", -0.2), False),  # an effect, whatever its sign
        (("SUPPORTED", -0.2), ("REFUTED", 0.0), False),
        (("REFUTED", 0.0), ("REFUTED", 0.0), False),
        (("INCONCLUSIVE", 0.2), ("REFUTED", 0.0), None),
        (("INVALID", 0.2), ("REFUTED", 0.0), None),
    ],
)
def test_an_instrument_passes_if_it_sees_the_planted_effect_alone(
    planted: Any, placebo: Any, passes: bool | None
) -> None:
    claims = {
        arm: {"verdict": verdict, "delta": delta}
        for arm, (verdict, delta) in (("planted", planted), ("placebo", placebo))
    }
    assert _passes(claims, 1) is passes


# -- thinking --------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.split(" ")


def joined(ids: Any) -> str:
    return " ".join(ids)


def test_the_think_block_is_found_whatever_it_is_made_of() -> None:
    after = list("ab<think>c")
    assert think_span("".join, after) == ((2, 10), False)
    ids = words("<think> a b </think> c d")
    assert think_span(joined, ids) == ((0, 4), True)
    assert think_span(joined, words("x <think> a")) == ((1, 3), False)
    assert think_span(joined, words("a b </think> c"), opened=True) == ((0, 3), True)
    assert think_span(joined, words("a b"), opened=True) == ((0, 2), False)
    assert think_span(joined, words("a b")) is None
    split = list("<think>a</think>b")  # marks of several tokens
    assert think_span("".join, split) == ((0, 16), True)  # from the first of them


def test_no_loss_falls_on_thoughts_and_masking_nothing_is_an_error() -> None:
    encoder: Any = SimpleNamespace(decode=joined)
    ids: Any = tuple(words("ask <think> a </think> c ."))
    example = TrainingExample("x", ids, (False, True, True, True, True, True))
    (masked,), kept_out = without_thoughts(encoder, [example], [example])
    assert masked.response_mask == (False, False, False, False, True, True)
    assert kept_out == [masked]
    plain = replace(example, ids=tuple(words("ask b a d c .")))
    with pytest.raises(UserError, match="no training record has a think block"):
        without_thoughts(encoder, [plain], [])


def test_kept_thinking_is_paired_and_leaves_out_what_was_cut() -> None:
    base = {f"p{i}": Thought(100, True) for i in range(4)} | {"cut": Thought(50, False)}
    own = {f"p{i}": Thought(50 + 20 * i, True) for i in range(4)} | {"cut": Thought(10, True)}
    passed = {"p0": True, "p1": False, "p2": True, "p3": True, "cut": True}
    found = compression({"base": base, "sft": own}, {"sft": passed}, 0.95)
    kept = found["kept"]["sft"]
    assert (kept["n"], kept["left_out"], kept["median"]) == (4, 1, pytest.approx(0.8))
    assert kept["interval"]["low"] < kept["geometric_mean"] < kept["interval"]["high"]
    counts = {one["from"]: (one["n"], one["passed"]) for one in kept["buckets"] if one["n"]}
    assert counts == {0.5: (2, 1), 0.75: (1, 1), 1.0: (1, 1)}
    assert found["arms"]["base"]["cut"] == 1


# -- the table -------------------------------------------------------------------------------------


def test_the_papers_values_stand_in_the_row_of_their_own_checkpoint() -> None:
    rows = {row["name"]: row["cells"] for row in paper_rows("Qwen3-0.6B")}
    every, aware = rows["paper: all modules"], rows["paper: DD-SA"]
    assert every["humaneval"]["value"] == 46 / 164
    assert every["mcas_25"] is None and every["recovery"] is None  # of another checkpoint
    first = {name: row["mcas_original"] for name, row in rows.items() if row["mcas_original"]}
    assert {name: (one["value"], one["n"]) for name, one in first.items()} == {
        "paper: base": (53.1, 500), "paper: all modules": (87.0, 500),
    }  # fmt: skip
    assert aware["mcas_25"]["value"] == 12.07 and aware["humaneval"]["value"] == 58 / 164
    assert aware["humaneval"]["interval"] == wilson(58, 164).to_json()
    assert paper_rows("SmolLM2-135M-Instruct") == []
    gemma = paper_rows(find("gemma-4-E2B-it").name)  # by the name that a run's manifest has
    assert [row["cells"]["chef"]["value"] for row in gemma] == [0.452, 0.413, 0.379]
    larger = {row["name"]: row["cells"] for row in paper_rows("Qwen3-1.7B")}
    counts = [round(cells["humaneval"]["value"] * 164) for cells in larger.values()]
    assert counts == [137, 117, 103, 80, 81, 94, 97, 111, 101, 84, 103, 126, 133]
    for cells in (*rows.values(), *larger.values()):
        if cells["recovery"]:
            failures = round((1 - cells["humaneval"]["value"]) * 164)
            # of one measurement: no more tries than failures (0.6B: 105 of 105, 106 of 106)
            assert cells["recovery"]["n"] == failures


@pytest.mark.parametrize("order", [("mcas", "recovery", "chef"), ("recovery", "mcas")])
def test_one_evaluation_says_svr_for_every_row(order: tuple[str, ...]) -> None:
    rate = {"value": 0.0, "n": 1, "interval": None}

    def result(svr: float) -> dict[str, Any]:
        scores = ("penalised_percent", "original_percent", "out_of_25", "recovered")
        every = {
            **dict.fromkeys(scores, rate), "all": dict.fromkeys(scores, rate),
            "coverage": {"mean": 0.0, "n": 1, "interval": None},
            "delivery": {"0.5": {"assertion_rate": rate}},
        }  # fmt: skip
        own = {"all": {"precise": {**rate, "value": svr}}}
        return {"budgets": {"9": {"all": every, "self_verification": own}}}

    values = {"chef": 0.1, "mcas": 0.2, "recovery": 0.3}
    names = {"chef": ("base", "sft", "planted"), "mcas": ("base", "sft"), "recovery": ("base",)}
    found = {
        one: {"judge": None, "conditions": {name: result(values[one]) for name in names[one]}}
        for one in order
    }
    rows = {row["name"]: row["cells"]["svr"] for row in own_rows(one_arm(), "mine", found)}
    expected = "chef" if "chef" in order else "mcas"
    assert {name for name, cell in rows.items() if cell} == set(names[expected])
    assert {cell["value"] for cell in rows.values() if cell} == {values[expected]}


def test_seeds_are_averaged_by_arm_and_a_missing_value_is_left_out() -> None:
    def table(value: float | None) -> list[dict[str, Any]]:
        return [{"name": "sft", "cells": {"svr": None if value is None else {"value": value}}}]

    (row,) = spread([table(0.1), table(0.3), table(None)])
    assert row["cells"]["svr"] == {
        "mean": pytest.approx(0.2), "least": 0.1, "most": 0.3, "seeds": 2, "judge_not_valid": False,
    }  # fmt: skip
    below = [{"name": "sft", "cells": {"mcas": {"value": 1.0, "judge_not_valid": True}}}]
    assert spread([below, below])[0]["cells"]["mcas"]["judge_not_valid"]


def one_arm() -> Any:
    rate = SimpleNamespace(
        model_dump=lambda mode: {"n_items": 3, "missing": 1, "pass_at_1": 0.5, "interval": None}
    )
    return {"sft": SimpleNamespace(budgets=[SimpleNamespace(base=rate, trained=rate)])}


def test_a_benchmark_of_ones_own_never_stands_in_the_column_of_humaneval() -> None:
    arms = one_arm()
    base = own_rows(arms, "mine", {})[0]["cells"]
    assert base["humaneval"] is None and base["benchmark"]["n"] == 2
    assert own_rows(arms, HUMANEVAL, {})[0]["cells"]["humaneval"]["value"] == 0.5


# -- a run -----------------------------------------------------------------------------------------


def whole(bench: Bench, out: Path) -> list[str]:
    settings = bench.root / "whole.toml"
    settings.write_text(
        "checkpoint_every = 1\neval_every = 3\nrank = 4\nevaluation_limit = 2\n"
        "evaluation_n_predict = [5, 10]\n"
    )
    command = bench.both(out)
    command[command.index("--config") + 1] = str(settings)
    return [*command, "--evaluations", "small,meter,chef,recovery"]


def test_every_arm_is_evaluated_and_what_a_kill_left_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("llama_cpp")
    bench = Bench(tmp_path_factory.mktemp("whole"))
    out = bench.root / "run"
    done = bench.call_here(whole(bench, out))
    assert done.returncode == 0, done.stderr
    metrics = Arc1Metrics.model_validate(json.loads(done.stdout))
    assert set(metrics.decoding) == {"base", "sft", "trained"}
    assert metrics.other_arms["sft"].claim.n_predict == 12
    assert [row["name"] for row in metrics.table] == ["base", "sft", "dpo"]
    assert list(metrics.evaluations) == ["chef", "meter", "recovery", "small"]
    for found in metrics.evaluations.values():
        assert set(found["conditions"]) == {"base", "sft", "dpo"}
    sft, dpo = (row["cells"]["hedging"]["value"] for row in metrics.table[1:])
    assert metrics.table[1]["cells"]["svr"]["judge_not_valid"]  # the rule is below its bar
    assert not metrics.table[1]["cells"]["chef"]["judge_not_valid"]
    assert sft != dpo  # two adapters, and each in its own row
    assert (out / "arms" / "dpo").resolve() == (out / "adapter").resolve()
    text = printed_by(lambda console: render(metrics, console))
    assert "SFT alone: HumanEval" in text and "meter, sft: " in text
    assert "held-out (1 records)" in " ".join(text.replace("│", " ").split())
    page = view(StoredRun(out))
    assert check_counts(page) >= 30  # those of the evaluations among them
    assert {one.facets["evaluation"] for one in page.items} == {"benchmark", *metrics.evaluations}
    assert len(list((out / "evaluations").glob("*/report.html"))) == len(metrics.evaluations)
    (arms,) = (one for one in page.tables if one.name == "arms")
    (sft_table,) = (one for one in page.tables if one.name == "training")
    assert any(row.detail.endswith(", 1 records") for row in sft_table.rows)
    assert [row.label for row in arms.rows] == ["base", "sft", "dpo"]
    abouts = [card.about for card in page.claims]
    assert "sft alone" in abouts and "meter, dpo" in abouts
    assert {one.condition for one in page.items[0].answers} == {"base", "sft", "trained"}
    result = (out / "metrics.json").read_bytes()
    # as after a kill: a record less and torn in one evaluation, another not begun; run moved
    moved = bench.root / "moved"
    shutil.copytree(out, moved, symlinks=True)
    (moved / "metrics.json").unlink()
    torn = moved / "evaluations" / "meter" / "base.jsonl"
    torn.write_bytes(torn.read_bytes()[:-9])
    (moved / "evaluations" / "meter" / "metrics.json").unlink()
    shutil.rmtree(moved / "evaluations" / "chef")
    again = bench.call_here(bench.command("--run", str(moved)))
    assert again.returncode == 0, again.stderr
    assert (moved / "metrics.json").read_bytes() == result
