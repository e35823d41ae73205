from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from arcs.figures import (
    AucCollapse,
    AucEstimate,
    AucStep,
    AxisSweep,
    BudgetCounts,
    Discordance,
    FeatureSet,
    NullDistribution,
    PaperAuc,
    PaperChange,
    PcaComparison,
    SweptAxis,
    discordance_of,
    draw_auc_collapse,
    draw_axis_sweep,
    draw_discordance,
    draw_nulls,
    draw_pca,
    project,
    save,
)
from arcs.figures.style import styled
from arcs.gates import load_gates
from arcs.verdicts import compare
from evals.humaneval.outcomes import ItemResult, Outcome
from evals.statistics import Interval, tango_interval
from evals.statistics.auc import hanley_mcneil_interval

ROOT = Path(__file__).resolve().parents[2]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def interval(low: float, high: float) -> Interval:
    return Interval(low, high, 0.95)


# PAPER.md 5.6 and 5.7: the published AUCs with Hanley-McNeil intervals.
COLLAPSE = AucCollapse(
    paper=(
        PaperAuc("CV", 0.683),
        PaperAuc("fresh", 0.516),
        PaperAuc("multi-\nlayer", 0.557),
        PaperAuc("second\nmodel", 0.519),
    ),
    paper_gate=0.63,
    steps=(
        AucStep("Gemma CV, bf16", AucEstimate(0.683, 58, 42, interval(0.580, 0.786)), 0.65),
        AucStep("Gemma CV, 4-bit", AucEstimate(0.663, 58, 42, interval(0.557, 0.769)), 0.65),
        AucStep("Gemma fresh", AucEstimate(0.516, 55, 138, interval(0.425, 0.607)), 0.63),
        AucStep("Gemma multi-layer", AucEstimate(0.557, 55, 138, interval(0.466, 0.648)), 0.63),
        AucStep(
            "SmolLM2 CV",
            AucEstimate(0.524, 56, 44, interval(0.410, 0.638)),
            0.65,
            interval(0.385, 0.615),
        ),
        AucStep(
            "SmolLM2 fresh",
            AucEstimate(0.519, 9, 184, interval(0.343, 0.700)),
            0.63,
            interval(0.31, 0.69),
        ),
    ),
    method="Hanley-McNeil; SmolLM2 fresh: bootstrap",
)


def swept(name: str, cv: float, n_cv: int, transfer: float, n_transfer: int) -> SweptAxis:
    pairs = ((cv, n_cv, 99 - n_cv), (transfer, n_transfer, 192 - n_transfer))
    first, second = (AucEstimate(a, p, q, hanley_mcneil_interval(a, p, q)) for a, p, q in pairs)
    return SweptAxis(name, first, second)


# PAPER.md 5.6, step 3.
SWEEP = AxisSweep(
    axes=(
        swept("factual", 0.533469387755102, 49, 0.4795996083124796, 101),
        swept("hedging", 0.5987341772151898, 79, 0.5151408035819488, 123),
        swept("pedagogical", 0.4814814814814815, 81, 0.43869992441421013, 147),
        swept("self-verification", 0.5937829293993677, 26, 0.518489110707804, 76),
        swept("completeness", 0.510229132569558, 47, 0.4421836228287841, 130),
    ),
    method="Hanley-McNeil",
)

# PAPER.md 3.3 and 3.4.
PAPER_CHANGES = (
    PaperChange("HumanEval, first run (512 tokens)", 15.3, 100, "percentage points"),
    PaperChange("HumanEval, corrected budget", -8.0, 100, "percentage points"),
    PaperChange("MCAS, first judge", 33.9, 100, "percentage points"),
    PaperChange("MCAS, five axes", -0.32, 25, "sum of marks"),
)


def counted(n_predict: int, gained: int, lost: int, n: int) -> BudgetCounts:
    return BudgetCounts(n_predict, gained, lost, n, tango_interval(gained, lost, n))


# The first pair is the paper's artifact (PAPER.md 3.3); the others are a made-up Arc 1 run.
DISCORDANCE = Discordance(
    budgets=(
        counted(512, 35, 6, 164),
        counted(1024, 21, 14, 164),
        counted(2048, 13, 17, 163),
        counted(4096, 11, 19, 164),
    ),
    title="Edited against base over n_predict",
    paper=PAPER_CHANGES,
    smallest_effect=0.05,
)


def made_nulls() -> tuple[NullDistribution, ...]:
    rng = np.random.default_rng(0)
    heads = 0.2126 * rng.normal(size=(4000, 280)).max(axis=1)
    return (
        NullDistribution(
            "Largest Cohen's d of 280 heads, n = 53 and 38",
            "Cohen's d (pooled sd)",
            "280 independent normals",
            heads,
            0.5990696549415588,
            float((heads >= 0.599).mean()),
        ),
        NullDistribution(
            "Best asymmetry, SmolLM2 fresh, n = 193 (9 positive)",
            "asymmetry (difference of rates)",
            "labels permuted",
            rng.normal(-0.13, 0.05, 4000),
            -0.1878019323671497,
            0.21,
            gate=-0.15,
            larger_passes=False,
        ),
        NullDistribution(
            "AUC, SmolLM2 fresh, n = 193 (9 positive)",
            "AUC (no unit)",
            "labels permuted",
            rng.normal(0.5, 0.1, 4000),
            0.518719806763285,
            0.42,
            gate=0.63,
        ),
    )


def made_features(seed: int = 0) -> PcaComparison:
    rng = np.random.default_rng(seed)
    cut = np.arange(40) < 10
    training = rng.normal(size=(40, 30)) + 3.0 * cut[:, None] * (np.arange(30) < 5)
    fresh = rng.normal(size=(60, 30)) + 1.5 * (np.arange(30) > 20)
    return PcaComparison(
        FeatureSet("step16", training, cut=cut),
        FeatureSet("fresh", fresh, labels=np.arange(60) < 4),
        set_probe=AucEstimate(0.853, 40, 60, interval(0.80, 0.91)),
        cut_probe=AucEstimate(1.0, 10, 30),
    )


def paper_features(folder: Path) -> PcaComparison:
    """SmolLM2's features; a stored text of exactly 1,500 characters was cut (PAPER.md 5.1)."""
    profile = json.loads((folder / "baseline_smollm_v2_disposition_profile.json").read_text())
    cut = np.array([len(sample["text"]) == 1500 for sample in profile["samples"]])
    judged = json.loads((folder / "smollm_fresh_judged_gold.json").read_text())
    with (
        np.load(folder / "smollm_step16_features.npz") as step16,
        np.load(folder / "smollm_fresh_features.npz") as fresh,
    ):
        return PcaComparison(
            FeatureSet("step16", step16["X"].astype(np.float64), cut=cut),
            FeatureSet("fresh", fresh["X"].astype(np.float64), np.array(judged["labels"]) == 1),
            set_probe=AucEstimate(0.853, 100, 193),
            cut_probe=AucEstimate(1.0, 25, 75),
        )


ALL: dict[str, Callable[[], Figure]] = {
    "auc_collapse": lambda: draw_auc_collapse(COLLAPSE),
    "axis_sweep": lambda: draw_axis_sweep(SWEEP),
    "pca": lambda: draw_pca(made_features()),
    "discordance": lambda: draw_discordance(DISCORDANCE),
    "nulls": lambda: draw_nulls(made_nulls()),
}


def texts(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is really drawn (a tick label beyond its axis is not), with its box."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    seen: list[Text] = []
    draw = Text.draw

    def record(text: Text, *args: object, **kwargs: object) -> None:
        seen.append(text)
        draw(text, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.draw(renderer)
    shown = {id(text): text for text in seen if text.get_visible() and text.get_text().strip()}
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown.values()]


def clashes(figure: Figure) -> list[str]:
    """Texts that overlap one another, or that stand outside the figure."""
    boxes, page = drawn_texts(figure), figure.bbox
    outside = [
        text
        for text, box in boxes
        if min(box.x0, box.y0) < -1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1
    ]
    pairs = [
        f"{first} / {second}"
        for (first, a), (second, b) in combinations(boxes, 2)
        # One pixel of 1/200 inch may be shared: boxes are wider than their letters.
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    return outside + pairs


def svg(figure: Figure, folder: Path) -> str:
    with styled():  # as save does, without the PNG
        figure.savefig(folder / "drawn.svg")
    return (folder / "drawn.svg").read_text()


def svg_words(svg_text: str) -> set[str]:
    root = ElementTree.fromstring(svg_text)
    return {"".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")}


@pytest.mark.parametrize("name", ALL)
def test_a_figure_is_written_twice_with_the_same_bytes(name, tmp_path) -> None:
    written = [save(figure, tmp_path / str(i), name) for i, figure in enumerate(twice(name))]
    for index, kind in enumerate(("svg", "png")):
        paths = [both[index] for both in written]
        assert {path.name for path in paths} == {f"{name}.{kind}"}
        assert len({path.read_bytes() for path in paths}) == 1
    assert ElementTree.parse(written[0][0]).getroot().tag.endswith("svg")
    assert written[0][1].read_bytes().startswith(PNG_SIGNATURE)
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == [
        f"{name}.png",
        f"{name}.svg",
    ]


def twice(name: str) -> tuple[Figure, Figure]:
    """Drawn twice, but for one figure, which is saved twice: its layout must not move."""
    first = ALL[name]()
    return first, first if name == "nulls" else ALL[name]()


def test_other_numbers_give_other_bytes(tmp_path) -> None:
    first = save(draw_pca(made_features(0)), tmp_path, "a")
    second = save(draw_pca(made_features(1)), tmp_path, "b")
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, second, strict=True))


WORDS = {
    "auc_collapse": """
        0.683 | 0.516 | 0.557 | 0.519 | 0.683 [0.580, 0.786] | 0.519 [0.343, 0.700]
        | n = 193 (9 positive) | As the paper draws it | AUC (no unit), 95 % intervals
        | permutation null (95 %) | Hanley-McNeil; SmolLM2 fresh: bootstrap | chance (0.5)
        | gate 0.63""",
    # Hanley and McNeil by hand: 0.4796 with 101 and 91 has standard error 0.0418.
    "axis_sweep": """
        self-verification | CV: n = 99 (26 positive) | transfer: n = 192 (76 positive)
        | CV gate (0.65) | transfer gate (0.60) | As the paper draws it | 0.480 [0.398, 0.562]""",
    "pca": """
        judged correct (n = 4) | judged wrong (n = 56) | step16, text cut off (n = 10)
        | fresh, cut-off unknown (n = 60) | fitted on both sets together, n = 100
        | probe of set: AUC 0.853 [0.800, 0.910], n = 100
        | probe of cut-off: AUC 1.000 (no interval), n = 40""",
    # (35 - 6) / 164 is 17.7 points; its interval is tested beside the other statistics.
    "discordance": """
        +15.3 | −8 | +33.9 | −0.32 | sum of marks (full scale 25) | +17.7 | [10.7, 25.2]
        | percentage points (full scale 100) | +35 | −6 | 512 | n = 163 | (points, 95 % intervals)
        | smallest effect that matters (±5)
        | n_predict (tokens); n: complete pairs; Tango intervals""",
    "nulls": """
        As the paper gives it: no null | draws (of 4000) | 0.599 | −0.188 | gate ≤ −0.15
        | Largest Cohen's d of 280 heads, n = 53 and 38 | AUC (no unit) | gate ≥ 0.63""",
}


@pytest.mark.parametrize("name", ALL)
def test_numbers_and_labels_are_text_in_the_svg(name, tmp_path) -> None:
    found = svg_words(svg(drawn(name), tmp_path))
    wanted = {" ".join(phrase.split()) for phrase in WORDS[name].split("|")}
    assert not wanted - found
    assert "0.683 [0.580, 0.787]" not in found  # what would be missing is missed


EIGHT = tuple(counted(2**k, 40 + k, 35, 164) for k in range(6, 14))
VARIANTS: dict[str, Callable[[], Figure]] = {
    "eight budgets": lambda: draw_discordance(dataclasses.replace(DISCORDANCE, budgets=EIGHT)),
    "eight budgets of ours": lambda: draw_discordance(Discordance(EIGHT, "Ours")),
    "one budget": lambda: draw_discordance(
        dataclasses.replace(DISCORDANCE, budgets=DISCORDANCE.budgets[:1])
    ),
    "no pair": lambda: draw_discordance(
        Discordance((BudgetCounts(512, 0, 0, 0), counted(1024, 3, 4, 10)), "Ours")
    ),
    "one step": lambda: draw_auc_collapse(AucCollapse((), None, COLLAPSE.steps[:1], "DeLong")),
    "ten steps": lambda: draw_auc_collapse(
        dataclasses.replace(COLLAPSE, steps=COLLAPSE.steps + COLLAPSE.steps[:4])
    ),
    "one axis": lambda: draw_axis_sweep(AxisSweep(SWEEP.axes[:1], "DeLong", paper=False)),
    "one null": lambda: draw_nulls(made_nulls()[1:2]),
}


@cache
def drawn(name: str) -> Figure:
    """One of the figures; nobody changes it."""
    return (ALL | VARIANTS)[name]()


@pytest.mark.parametrize("name", [*ALL, *VARIANTS])
def test_no_text_overlaps_another_or_leaves_the_page(name) -> None:
    figure = drawn(name)
    assert clashes(figure) == []


def test_an_overlap_would_be_seen() -> None:
    figure = draw_axis_sweep(SWEEP)
    figure.text(0.5, 0.5, "over the axes\nand over labels" * 3)
    figure.text(0.99, 0.01, "leaves the page")
    found = clashes(figure)
    assert "leaves the page" in found and len(found) > 1


@pytest.mark.parametrize("name", [*ALL, *VARIANTS])
def test_every_axis_is_labelled_with_unit_and_n(name) -> None:
    figure = drawn(name)
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_xlabel")):
        ticks_below = axes.xaxis.get_tick_params()["labelbottom"]
        categories = name in ("auc_collapse", "ten steps")
        assert axes.get_xlabel() or not ticks_below or categories
        rows = not axes.get_ylabel()
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert not rows or not any(label.replace(".", "").isdigit() for label in labels)
    whole = " ".join(text.get_text() for text in texts(figure))
    assert "n = " in whole and any(unit in whole for unit in ("unit", "points", "rates"))


def segments(figure: Figure) -> set[tuple[float, ...]]:
    """End points of every line of two points, both coordinates, rounded."""
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    drawn = [line.get_xydata() for line in lines if len(line.get_xydata()) == 2]
    return {tuple(float(v) for v in np.round(xy, 9).ravel()) for xy in drawn}


def test_intervals_are_drawn_where_they_are_and_only_there() -> None:
    whisker = (0.343, 5.0, 0.7, 5.0)
    assert whisker in segments(draw_auc_collapse(COLLAPSE))
    bare = tuple(
        AucStep(s.name, dataclasses.replace(s.estimate, interval=None)) for s in COLLAPSE.steps
    )
    figure = draw_auc_collapse(dataclasses.replace(COLLAPSE, steps=bare))
    assert whisker not in segments(figure)
    assert "0.519 (no interval)" in {text.get_text() for text in texts(figure)}
    hollow = [line for line in figure.axes[-1].get_lines() if line.get_markerfacecolor() == "white"]
    assert len(hollow) == len(bare)


def test_tangos_interval_is_drawn_in_points_upright() -> None:
    limits = tango_interval(35, 6, 164)
    drawn = segments(draw_discordance(DISCORDANCE))
    assert (0.0, round(100 * limits.low, 9), 0.0, round(100 * limits.high, 9)) in drawn
    assert (0.0, round(limits.low, 9), 0.0, round(limits.high, 9)) not in drawn


def test_a_set_without_positives_has_no_auc_and_says_so(tmp_path) -> None:
    step = AucStep("fresh", AucEstimate(None, 0, 193), 0.63)
    found = svg_words(svg(draw_auc_collapse(AucCollapse((), None, (step,), "DeLong")), tmp_path))
    assert {"no AUC: one class only", "n = 193 (0 positive)"} <= found
    unmeasured = AucStep("fresh", AucEstimate(None, 9, 184), 0.63)
    found = svg_words(svg(draw_auc_collapse(AucCollapse((), None, (unmeasured,), "-")), tmp_path))
    assert "not measured" in found and "no AUC: one class only" not in found


def test_a_set_judged_wrong_throughout_or_not_at_all_is_drawn(tmp_path) -> None:
    data = made_features()
    for labels, word in (
        (np.zeros(60, bool), "judged correct (n = 0)"),
        (None, "not judged (n = 60)"),
    ):
        fresh = dataclasses.replace(data.fresh, labels=labels)
        assert word in svg_words(svg(draw_pca(dataclasses.replace(data, fresh=fresh)), tmp_path))


NAN = float("nan")
REFUSED: dict[str, Callable[[], object]] = {
    "AUC": lambda: AucEstimate(NAN, 10, 10),
    "AUC above 1": lambda: AucEstimate(1.01, 10, 10),
    "AUC of one class": lambda: AucEstimate(0.5, 0, 10),
    "interval without AUC": lambda: AucEstimate(None, 10, 10, interval(0.4, 0.6)),
    "negative count": lambda: AucEstimate(None, -1, 10),
    "infinite interval": lambda: AucEstimate(0.5, 10, 10, interval(0.4, float("inf"))),
    "paper's AUC": lambda: PaperAuc("CV", NAN),
    "gate": lambda: AucStep("CV", AucEstimate(0.5, 10, 10), NAN),
    "sweep gate": lambda: AxisSweep(SWEEP.axes, "-", transfer_gate=NAN),
    "no steps": lambda: AucCollapse((), None, (), "-"),
    "no axes": lambda: AxisSweep((), "-"),
    "features": lambda: FeatureSet("a", np.array([[1.0, NAN], [0.0, 1.0], [2.0, 2.0]])),
    "no features": lambda: FeatureSet("a", np.zeros((0, 4))),
    "labels short": lambda: FeatureSet("a", np.zeros((4, 4)), labels=np.zeros(3, bool)),
    "widths differ": lambda: PcaComparison(
        FeatureSet("a", np.zeros((4, 4))), FeatureSet("b", np.zeros((4, 5)))
    ),
    "no variation": lambda: project(np.ones((5, 4))),
    "two items": lambda: project(np.eye(2)),
    "one column": lambda: project(np.arange(5.0)[:, None]),
    "change": lambda: PaperChange("a", NAN, 100, "points"),
    "scale": lambda: PaperChange("a", 1.0, 0, "points"),
    "more discordant than pairs": lambda: BudgetCounts(512, 6, 5, 10),
    "negative loss": lambda: BudgetCounts(512, 6, -1, 10),
    "n_predict 0": lambda: BudgetCounts(0, 1, 1, 10),
    "interval without pairs": lambda: BudgetCounts(512, 0, 0, 0, interval(-0.1, 0.1)),
    "budgets fall": lambda: Discordance(DISCORDANCE.budgets[::-1], "a"),
    "no budgets": lambda: Discordance((), "a"),
    "smallest effect": lambda: Discordance(DISCORDANCE.budgets, "a", smallest_effect=NAN),
    "null": lambda: NullDistribution("a", "b", "c", np.array([0.0, NAN]), 0.0, 0.5),
    "empty null": lambda: NullDistribution("a", "b", "c", np.array([]), 0.0, 0.5),
    "observed": lambda: NullDistribution("a", "b", "c", np.zeros(3), NAN, 0.5),
    "p": lambda: NullDistribution("a", "b", "c", np.zeros(3), 0.0, NAN),
    "null gate": lambda: NullDistribution("a", "b", "c", np.zeros(3), 0.0, 0.5, gate=NAN),
    "no nulls": lambda: draw_nulls(()),
    "two levels": lambda: draw_auc_collapse(
        dataclasses.replace(
            COLLAPSE,
            steps=(*COLLAPSE.steps, AucStep("x", AucEstimate(0.5, 9, 9, Interval(0.4, 0.6, 0.9)))),
        )
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_numbers_are_refused(case) -> None:
    with pytest.raises(ValueError):
        REFUSED[case]()


def test_components_have_their_largest_loading_positive() -> None:
    x = np.random.default_rng(3).normal(size=(50, 8)) @ np.random.default_rng(4).normal(size=(8, 8))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for features, standardised in ((x, z), (-x, -z)):
        found = project(features)
        # Independent of sklearn: singular values and loadings of the standardised matrix.
        _, singular, right = np.linalg.svd(standardised, full_matrices=False)
        loadings = standardised.T @ found.scores / singular[:2] ** 2
        np.testing.assert_allclose(np.abs(loadings), np.abs(right[:2].T), atol=1e-9)
        assert (loadings[np.abs(loadings).argmax(axis=0), [0, 1]] > 0).all()
        np.testing.assert_allclose(found.shares, singular[:2] ** 2 / (singular**2).sum())
    # Mirrored data have mirrored scores: the sign follows the loadings, not the scores.
    np.testing.assert_allclose(project(-x).scores, -project(x).scores, atol=1e-9)


def test_the_papers_features_separate_cut_texts_on_the_first_component(
    paper_artifacts, tmp_path
) -> None:
    data = paper_features(paper_artifacts)
    golden = json.loads((paper_artifacts / "golden.json").read_text())
    expected = golden["smollm.features"]["pca2_evr_fresh_standardised"]
    # The features are bf16 numbers and the golden value was computed in single precision.
    np.testing.assert_allclose(project(data.fresh.features).shares, expected, rtol=1e-5)
    both = project(np.concatenate([data.training.features, data.fresh.features])).scores[:, 0]
    cut = np.zeros(293, dtype=bool)
    cut[:100] = data.training.cut
    assert cut.sum() == 25 and both[cut].max() < both[~cut].min()
    figure = draw_pca(data)
    assert clashes(figure) == []
    found = svg_words(svg(figure, tmp_path))
    assert {"judged correct (n = 9)", "step16, text cut off (n = 25)"} <= found
    assert "PC1 (sd units; 13.8 % of the variance)" in found


def test_a_gates_false_positive_rate_is_its_share_of_the_null(tmp_path) -> None:
    null = NullDistribution("a, n = 4", "b", "shuffled", np.arange(4.0), 1.0, 0.5, gate=2.0)
    assert null.false_positive_rate == 0.5  # 2 and 3
    below = dataclasses.replace(null, larger_passes=False)
    assert below.false_positive_rate == 0.75  # 0, 1 and 2
    assert dataclasses.replace(null, gate=None).false_positive_rate is None
    found = svg_words(svg(draw_nulls((below,)), tmp_path))
    assert "gate ≤ 2 passed by 75.0 % of the null" in found
    assert "shuffled: mean 1.500; observed 1.000, p = 0.5" in found


def test_a_constant_null_and_a_tiny_p_are_drawn(tmp_path) -> None:
    null = NullDistribution("a, n = 4", "b", "shuffled", np.zeros(9), 1.0, 1e-6)
    found = svg_words(svg(draw_nulls((null,)), tmp_path))
    assert "shuffled: mean 0.000; observed 1.000, p = below 0.0001; no gate" in found


def results(passing: range, n: int = 30) -> list[ItemResult]:
    outcomes = (Outcome.WRONG, Outcome.PASSED)
    return [ItemResult(f"i{i}", outcomes[i in passing], False, False, f"{i}") for i in range(n)]


def test_an_arc_1_comparison_is_drawn_as_it_was_counted(tmp_path) -> None:
    comparison = compare(
        {512: results(range(5)), 1024: results(range(10))},
        {512: results(range(3, 20)), 1024: results(range(8))},
        load_gates(),
        base_settings="same",
        edited_settings="same",
    )
    data = discordance_of(comparison, "Ours")
    # At 512 items 5..19 are gained and 0..2 lost; at 1024 items 8 and 9 are lost.
    counts = [(b.n_predict, b.gained, b.lost, b.n) for b in data.budgets]
    assert counts == [(512, 15, 3, 30), (1024, 0, 2, 30)]
    assert [b.delta for b in data.budgets] == pytest.approx([40.0, -100 / 15])
    assert data.budgets[0].interval == tango_interval(15, 3, 30)
    assert data.smallest_effect == load_gates().smallest_effect.pass_at_1
    figure = draw_discordance(data)
    assert clashes(figure) == []
    assert {"+40.0", "−6.7", "+15", "−3", "n = 30"} <= svg_words(svg(figure, tmp_path))


def test_arms_with_different_items_have_no_difference(tmp_path) -> None:
    comparison = compare(
        {512: results(range(5))},
        {512: results(range(5), n=29)},
        load_gates(),
        base_settings="same",
        edited_settings="same",
    )
    data = discordance_of(comparison, "Ours")
    assert data.budgets == (BudgetCounts(512, 0, 0, 0),) and data.budgets[0].delta is None
    assert {"no complete", "pair", "n = 0"} <= svg_words(svg(draw_discordance(data), tmp_path))


def test_a_name_with_a_dollar_sign_is_no_formula(tmp_path) -> None:
    axis = dataclasses.replace(SWEEP.axes[0], name="$x_1$ & <b>")
    found = svg_words(svg(draw_axis_sweep(AxisSweep((axis,), "-", paper=False)), tmp_path))
    assert "$x_1$ & <b>" in found


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch) -> None:
    figure = draw_nulls(made_nulls()[:1])
    first, _ = save(figure, tmp_path, "figure")
    before = first.read_bytes()

    def half(path: Path, **_: object) -> None:
        path.write_bytes(b"<svg")
        raise OSError("no space left")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="no space left"):
        save(figure, tmp_path, "figure")
    assert first.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


@pytest.mark.parametrize("name", ["", "../figure", "a/b", "/a"])
def test_a_name_must_stay_in_its_folder(name, tmp_path) -> None:
    with pytest.raises(ValueError):
        save(Figure(), tmp_path, name)


PROGRAM = """
import sys, pathlib, matplotlib
sys.path.insert(0, sys.argv[2])
def settings():  # asking for the backend would make matplotlib choose one, with pyplot
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
from arcs.figures import NullDistribution, draw_nulls, save
import numpy as np
null = NullDistribution("a, n = 4", "b", "c", np.arange(40.0) ** 2, 1.0, 0.5, gate=2.0)
save(draw_nulls((null,)), pathlib.Path(sys.argv[1]), "figure")
print("matplotlib.pyplot" in sys.modules, settings() == before, before["font.size"])
"""


def test_another_process_with_other_settings_draws_the_same(tmp_path) -> None:
    """Hash seed and matplotlibrc are the user's; the bytes are ours; pyplot stays out."""
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.size: 23\nsvg.fonttype: path\naxes.grid: True\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "theirs"), str(ROOT)],
        env={**os.environ, "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True", "23.0"]
    null = NullDistribution("a, n = 4", "b", "c", np.arange(40.0) ** 2, 1.0, 0.5, gate=2.0)
    for path in save(draw_nulls((null,)), tmp_path / "ours", "figure"):
        assert path.read_bytes() == (tmp_path / "theirs" / path.name).read_bytes()
