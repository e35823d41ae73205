"""Probes, rankings, interventions and claims for the audits: clean ones, and the paper's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.audits.findings import Audit, Outcome
from arcs.audits.probe_data import binary_labels, labelled
from arcs.audits.results import (
    Claim,
    Effect,
    EffectRanking,
    Features,
    Instrument,
    Intervention,
    Item,
    LabelKind,
    OperatingPoint,
    ProbeResult,
    Results,
    ResultSet,
    Role,
)
from evals.statistics.auc import auc
from evals.statistics.cross_validation import fit_and_score
from tests.support.audit_results import (
    BASE,
    EDITED,
    SOURCE,
    TRAIN,
    change_items,
    clean_results,
    only,
)

AT_HALF = "at n_predict 1024"
OTHER = "other model"


def audit(audits: Sequence[Audit], name: str, results: Results) -> Outcome:
    """Run one audit by its name."""
    return next(one for one in audits if one.name == name).run(results)


@lru_cache(maxsize=8)
def clean_experiment(seed: int = 0, *, n: int = 120) -> Results:
    """A clean run with enough items for its claims: arms at two budgets, a probe, a ranking."""
    results = _nearly_equal_arms(clean_results(seed, n=n, n_train=80), seed)
    halves = tuple(
        replace(one, name=f"{one.name} {AT_HALF}", n_predict=1024, role=None, features=None)
        for one in (only(results, BASE), only(results, EDITED))
    )
    return replace(
        results,
        sets=(*results.sets, *halves, _other_model(results, seed)),
        probes=(clean_probe(results),),
        rankings=(clean_ranking(seed),),
        interventions=tuple(
            Intervention(f"lambda {s} seed {k}", SOURCE, "humble", s, s == 1.0, k, {"top_p": "1"})
            for s in (1.0, 0.5)
            for k in (1, 2, 3)
        ),
        claims=(
            Claim("pass@1 rises by ten points", SOURCE, 0.10, "paired rate", 1000),
            Claim("wrong answers are asserted less often", SOURCE, -0.2, "rate", 1000, 400),
            Claim("features carry correctness", SOURCE, 0.15, "auc", 400, 200),
        ),
    )


def _other_model(results: Results, seed: int) -> ResultSet:
    """Another model's labels of the same items, which have nothing to do with this one's."""
    rng = np.random.default_rng(seed + 1000)
    base = only(results, BASE)
    items = tuple(
        replace(item, response=f"Answer {i}.", labels={"coverage": float(c)})
        for i, (item, c) in enumerate(
            zip(base.items, rng.integers(0, 5, len(base.items)) / 4, strict=True)
        )
    )
    return replace(
        base,
        name=OTHER,
        family="other",
        arm=None,
        items=items,
        features=None,
        instruments={"coverage": base.instruments["coverage"]},
    )


def _nearly_equal_arms(results: Results, seed: int) -> Results:
    """The edited arm passes what the base arm passes but for one item: an effect is excluded."""
    base = only(results, BASE)
    changed = int(np.random.default_rng(seed).integers(len(base.items)))
    right = base.items[changed].labels["correct"]
    turned = next(item.labels for item in base.items if item.labels["correct"] is not right)
    labels = [item.labels for item in base.items]
    labels[changed] = {**turned, "ends_politely": labels[changed]["ends_politely"]}
    return change_items(results, EDITED, lambda i, item: replace(item, labels=labels[i]))


def clean_probe(results: Results) -> ProbeResult:
    """What an honest report of a probe on the clean features would say."""
    train, test = (
        labelled(only(results, TRAIN), "correct"),
        labelled(only(results, BASE), "correct"),
    )
    assert train is not None and test is not None
    scores = fit_and_score(train.x, train.y, test.x, c=1.0)
    return ProbeResult(
        name="correctness",
        source=SOURCE,
        configuration="C=1.0",
        run="run 1",
        train_auc=0.70,
        test_auc=auc(scores, test.y),
        n_positive=test.n_positive,
        n_negative=test.n_negative,
        operating_point=OperatingPoint(0.5, -0.2, 0.5, 0.7, Role.TRAIN),
        auc_gate=0.70,
        asymmetry_gate=-0.15,
        train_auc_gate=0.65,
        null_reported=True,
        family="experiment",
    )


def clean_ranking(seed: int) -> EffectRanking:
    """Forty heads of nothing, with a null reported, in a direction fitted on other folds."""
    effects = np.sort(np.random.default_rng(seed).normal(0, 0.2, 40))[::-1]
    named = tuple(Effect(f"head {i}", float(e)) for i, e in enumerate(effects))
    return EffectRanking(
        "heads",
        SOURCE,
        named,
        50,
        50,
        null_reported=True,
        direction_dimension=64,
        cross_fitted=True,
    )


def change_probe(results: Results, **changes: Any) -> Results:
    """The same results with fields of every probe replaced."""
    return replace(results, probes=tuple(replace(one, **changes) for one in results.probes))


def load(folder: Path, name: str) -> Any:
    """One of the paper's JSON files."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _coverage_set(
    name: str, family: str, role: Role, source: Path, coverage: Sequence[float], **rest: Any
) -> ResultSet:
    """Items named by set and position, with a coverage that is cut at 0.5."""
    prefix = "step16" if role is Role.TRAIN else "fresh"
    texts = rest.pop("texts", [(None, None)] * len(coverage))
    cut = Instrument("coverage", LabelKind.SHARE, threshold=0.5, threshold_label="correct")
    return ResultSet(
        name=name,
        source=source,
        items=tuple(
            Item(f"{prefix}-{i}", prompt, response, labels={"coverage": float(value)})
            for i, ((prompt, response), value) in enumerate(zip(texts, coverage, strict=True))
        ),
        instruments={"coverage": cut},
        role=role,
        family=family,
        **rest,
    )


def paper_smollm(folder: Path) -> Results:
    """SmolLM2's features, labels and both reported configurations."""
    step16 = np.load(folder / "smollm_step16_features.npz")
    fresh = np.load(folder / "smollm_fresh_features.npz")
    judged = load(folder, "smollm_fresh_judged_gold.json")["coverage"]
    reported = load(folder, "smollm_factual_probe.json")
    source = folder / "smollm_factual_probe.json"
    sets = (
        _coverage_set(
            "SmolLM2 step16",
            "SmolLM2",
            Role.TRAIN,
            source,
            step16["coverage"],
            features=_positions("step16", step16["X"]),
        ),
        _coverage_set(
            "SmolLM2 fresh",
            "SmolLM2",
            Role.TEST,
            source,
            judged,
            features=_positions("fresh", fresh["X"]),
        ),
    )
    counts = {
        "n_positive": reported["fresh_pos"],
        "n_negative": reported["fresh_n"] - reported["fresh_pos"],
    }
    probes = tuple(
        _paper_probe(
            "SmolLM2 factual",
            source,
            name,
            found["auc"],
            OperatingPoint(found["best_thr"], found["best_asym"], chosen_on=Role.TEST),
            family="SmolLM2",
            **counts,
        )
        for name, found in reported["results"].items()
    )
    return Results(folder, "paper", sets=sets, probes=probes)


def _positions(prefix: str, x: NDArray[np.float32]) -> Features:
    return Features(x, tuple(f"{prefix}-{i}" for i in range(len(x))), ids_are_positions=True)


def _paper_probe(
    name: str, source: Path, configuration: str, value: float, point: OperatingPoint, **rest: Any
) -> ProbeResult:
    return ProbeResult(
        name=name,
        source=source,
        configuration=configuration,
        run=source.name,
        test_auc=value,
        operating_point=point,
        auc_gate=0.63,
        asymmetry_gate=-0.15,
        **rest,
    )


def paper_gemma(folder: Path) -> Results:
    """Gemma's labelled texts, and its reported configurations on one layer and on several."""
    step16 = load(folder, "judge_v4_step16.json")["items"]
    fresh = load(folder, "judge_v4_fresh.json")["items"]
    judged = load(folder, "v1_full_fresh_judged_gold.json")["coverage"]
    sets = tuple(
        _coverage_set(
            f"Gemma {name}",
            "Gemma",
            role,
            folder / "judge_v4.json",
            coverage,
            texts=[(item["prompt"], item["response"]) for item in items],
        )
        for name, role, items, coverage in (
            ("step16", Role.TRAIN, step16, [item["coverage"] for item in step16]),
            ("fresh", Role.TEST, fresh, judged),
        )
    )
    one, several = load(folder, "v1_full_v2.json"), load(folder, "probe_multilayer.json")
    reported = [
        *(("h_last", "v1_full_v2.json", n, f) for n, f in one["evaluation"]["configs"].items()),
        *(("multi", "probe_multilayer.json", n, f["fresh"]) for n, f in several["configs"].items()),
    ]
    probes = tuple(
        _paper_probe(
            f"Gemma {name}",
            folder / file,
            configuration,
            found["auc"],
            _balanced(found["balanced_pc_0.70"]),
            n_positive=55,
            n_negative=138,
            family="Gemma",
        )
        for name, file, configuration, found in reported
    )
    return Results(folder, "paper", sets=sets, probes=probes)


def _balanced(found: dict[str, float]) -> OperatingPoint:
    return OperatingPoint(
        found["thr"], found["asym"], found["p_assert_wrong"], found["p_assert_correct"], Role.TEST
    )


def paper_rankings(folder: Path) -> Results:
    """Both published attributions: every head's effect, confidently wrong against right."""
    rankings = []
    for name in ("gemma4", "qwen35_0.8b"):
        found = load(folder, f"path_b_attribution_{name}.json")
        heads = tuple(
            Effect(f"L{head['layer']}H{head['head']}", head["cohen_d"])
            for head in found["all_heads_ranked_by_cohen_d"]
        )
        cohorts = found["cohorts"]
        source = folder / f"path_b_attribution_{name}.json"
        rankings.append(EffectRanking(name, source, heads, cohorts["cw"], cohorts["cr"]))
    return Results(folder, "paper", rankings=tuple(rankings))


def degenerate_results() -> list[Results]:
    """Results that hold nothing, or nothing that can be used."""
    x = np.full((3, 2), np.nan, dtype=np.float32)
    passed = {"correct": Instrument("correct", LabelKind.PASS)}
    items = tuple(Item(str(i), response="", labels={"correct": None}) for i in range(3))
    empty = ResultSet("empty", SOURCE, (), role=Role.TEST, arm="base", instruments=passed)
    blank = replace(empty, name="blank", items=items, features=Features(x, ("0", "1", "2")))
    one_class = tuple(replace(item, labels={"correct": True}) for item in items)
    same = replace(blank, name="same", items=one_class, role=Role.TRAIN, arm="edited")
    probe = ProbeResult("p", SOURCE, "MLP", "r", test_auc=0.5, n_positive=0, n_negative=0)
    point = OperatingPoint(0.5, 0.0, chosen_on=Role.TEST)
    odd = replace(probe, test_auc=None, operating_point=point, n_positive=None, n_negative=3)
    single = EffectRanking("one", SOURCE, (Effect("a", 1.0),), 1, 1, direction_dimension=1)
    none = replace(single, effects=(), n_first=0, n_second=0)
    control = Intervention("control", SOURCE, "s", 1.0, True, None)
    claims = (
        Claim("nothing", SOURCE, 0.0, "paired rate", 0),
        Claim("all", SOURCE, 1.0, "rate", 2),
        Claim("all", SOURCE, -0.5, "auc", 2, 1),
        Claim("other", SOURCE, 0.1, "perplexity", 100),
    )
    bare = Results(SOURCE, "made")
    return [
        bare,
        replace(bare, sets=(empty, blank)),
        replace(bare, sets=(empty, blank, same), probes=(probe, odd)),
        replace(bare, rankings=(single, none), interventions=(control,), claims=claims),
    ]


def passes(one: ResultSet, label: str = "correct") -> list[bool | None]:
    """A set's yes-or-no labels in item order."""
    return list(binary_labels(one)[label])
