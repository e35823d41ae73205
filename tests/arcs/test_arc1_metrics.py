"""The result document: its schema is documented, and what it is made of tells the arms apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcs.arc1.config import resolve
from arcs.arc1.metrics import Arc1Metrics, Decoding, Found, build
from arcs.arc1.stages import settings_sha256
from arcs.arc1.table import SHORT, STACKED, render
from arcs.runs import RunDirectory
from arcs.verdicts import compare, load_gates
from backends.interface import Completion
from evals.humaneval.outcomes import ItemResult, Outcome
from tests.support.printed import printed_by

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "arc1-metrics.schema.json"


def completion(i: int, tokens: int, near_ties: int | None) -> Completion:
    return Completion(str(i), (1,), tuple(range(tokens)), "stop", 0.0, near_ties=near_ties)


DECODING = {
    "base": Decoding.of([completion(1, 900, 2), completion(2, 334, 1)]),
    "trained": Decoding.of([completion(1, 5, 0), completion(2, 6, None)]),
}


def result(i: int, outcome: Outcome, *, truncated: bool = False, loop: bool = False) -> ItemResult:
    return ItemResult(f"HumanEval/{i}", outcome, truncated, loop, f"answer {i} {outcome}")


def arm(passed: int, n: int, *, unfinished: int = 0) -> list[ItemResult]:
    kinds = [Outcome.PASSED] * passed + [Outcome.WRONG] * (n - passed - unfinished)
    rows = [result(i, kind) for i, kind in enumerate(kinds)]
    cut = range(n - unfinished, n)
    return rows + [result(i, Outcome.TRUNCATED, truncated=True) for i in cut]


def metrics(base, trained) -> Arc1Metrics:
    comparison = compare(base, trained, load_gates(), base_settings="same", edited_settings="same")
    manifest = {
        "model": {"name": "tiny"},
        "evaluation": {"dataset": "small tasks", "quantisation": "q8_0"},
    }
    return build(resolve({}), manifest, Found(comparison, DECODING), None)


def shown(document: Arc1Metrics) -> str:
    return printed_by(lambda console: render(document, console))


def test_the_schema_in_the_docs_is_the_schema_of_the_code():
    stated = json.loads(SCHEMA.read_text())
    assert stated == Arc1Metrics.model_json_schema()


def test_a_result_survives_the_way_through_json():
    document = metrics({8: arm(30, 164)}, {8: arm(70, 164)})
    assert Arc1Metrics.model_validate(json.loads(document.model_dump_json())) == document
    assert document.claim.verdict == "SUPPORTED"


def test_no_number_is_shown_without_its_interval_and_the_share_cut_off():
    """ANCHORS B29: a budget of 8 tokens cuts every answer, and the score says so."""
    eight = arm(0, 20, unfinished=20)
    text = shown(metrics({8: eight, 512: arm(5, 20)}, {8: eight, 512: arm(5, 20)}))
    assert "20 (100%)" in text
    assert "25.0%" in text
    assert "5/20" in text
    assert "[11.2, 46.9]" in text  # Wilson, statsmodels' value for 5 of 20


def test_near_ties_are_counted_or_unknown():
    assert DECODING["base"] == Decoding(tokens=1234, near_ties=3)
    assert DECODING["trained"] == Decoding(tokens=11, near_ties=None)
    text = " ".join(shown(metrics({8: arm(5, 20)}, {8: arm(5, 20)})).split())
    assert "Near-ties: base 3 of 1,234 tokens" in text
    assert "trained 0" not in text


def test_every_outcome_has_a_column():
    everything = [result(i, kind) for i, kind in enumerate(Outcome)] + arm(50, 150)[9:]
    text = shown(metrics({8: everything}, {8: everything}))
    assert set(SHORT) == set(Outcome)
    heads = " ".join(STACKED.get(head, head) for head in SHORT.values())
    assert all(word in text for word in heads.split())


def test_the_table_is_whole_on_an_ordinary_terminal():
    shown(metrics({256: arm(30, 164), 2048: arm(34, 164)},
                  {256: arm(20, 164), 2048: arm(164, 164)}))  # fmt: skip


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("engine_trained", "decode_width", 4),
        ("engine_trained", "threads", 7),
        ("engine_trained", "gguf_sha256", "other"),
    ],
)
def test_arms_decoded_differently_are_not_compared(tmp_path, section, key, value):
    """ANCHORS B22: the same items at another batch width are another experiment."""
    engine = {"decode_width": 8, "threads": 2, "gguf_sha256": "a", "adapter_sha256": None}
    shared = {"evaluation": {}, "chat": {}, "sandbox": {}}
    manifest = {**shared, "engine_base": engine, "engine_trained": {**engine}}
    manifest["engine_trained"]["adapter_sha256"] = "lora"  # the edit itself may differ
    with RunDirectory.create(tmp_path / "same", manifest) as run:
        assert settings_sha256(run, "base") == settings_sha256(run, "trained")
    manifest[section] = {**manifest[section], key: value}
    with RunDirectory.create(tmp_path / "other", manifest) as run:
        base, trained = settings_sha256(run, "base"), settings_sha256(run, "trained")
    assert base != trained
    comparison = compare(
        {8: arm(9, 20)}, {8: arm(9, 20)}, load_gates(),
        base_settings=base, edited_settings=trained,
    )  # fmt: skip
    assert comparison.claim.verdict == "INVALID"
    assert "instrument_differs" in [str(reason) for reason in comparison.claim.reasons]
