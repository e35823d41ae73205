"""The Chef verifier: what it can contradict, what it must leave alone, and its bar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import arcs.training_data
from arcs.gates import load_gates
from evals.chef.readings import readings
from evals.chef.text import plain
from evals.chef.validation import Pair, load_pairs, rank, shipped
from evals.chef.verifier import verify


def verdicts(text: str, check: str) -> list[str]:
    return [one.verdict for one in verify(text).statements if one.check == check]


def test_it_ranks_the_shipped_test_pairs_above_its_gate() -> None:
    found = shipped()
    assert found.n >= 50 and found.share >= load_gates().verifier.ranked_right
    assert len({one.good for one in load_pairs(None)}) == len(load_pairs(None)) >= 80
    turned = [Pair(o.id, o.split, o.kind, o.bad, o.good, o.wrong) for o in load_pairs()]
    assert rank(turned).share <= 0.05


def test_answers_that_ship_as_good_are_hardly_ever_contradicted() -> None:
    """2 contradictions in 229 answers when the rules were made; a rule that fires at random on
    prose (PAPER.md 8.7 V2: 98 of 100 answers) would show here at once."""
    folder = Path(arcs.training_data.__file__).parent
    texts = [json.loads(line)[key] for name, key in (("dispositions", "response"),
                                                     ("preferences", "chosen"))
             for line in (folder / f"{name}_cooking.jsonl").open()]  # fmt: skip
    wrong = [s for text in texts for s in verify(text).statements if s.verdict == "contradicted"]
    assert len(texts) >= 229 and len(wrong) <= 0.03 * len(texts)


SPELLINGS = ("{} °C", "{}°C", "{} degrees Celsius", "{} ºC", "{}C", "{} ℃", "{} deg C",
             r"${}^\circ\text{{C}}$", r"{}\,^{{\circ}}\mathrm{{C}}", r"${}^{{\circ}}$C",
             r"\SI{{{}}}{{\celsius}}", r"\({}\degree\)C", "**{} °C**")  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("degrees", "verdict"), [("83", "correct"), ("98", "contradicted")])
def test_degrees_are_read_however_they_are_written(
    spelling: str, degrees: str, verdict: str
) -> None:
    text = f"Cook the crème anglaise to {spelling.format(degrees)} and no more."
    assert verdicts(text, "temperature") == [verdict]


@settings(max_examples=60, deadline=None)
@given(st.integers(-30, 260))
def test_celsius_and_fahrenheit_say_the_same(celsius: int) -> None:
    (fahrenheit,) = readings(f"at {celsius * 1.8 + 32:.1f} °F", "temperature")
    (read,) = readings(f"at {celsius} °C", "temperature")
    assert read.low == celsius and abs(fahrenheit.low - celsius) < 0.06  # one decimal of °F


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_without_error(text: str) -> None:
    plain(text)
    score = verify(text).score
    assert score is None or 0 < score < 1


@pytest.mark.parametrize(
    ("text", "check", "expected"),
    [
        # ranges: both ends count, part of one outside is not decided
        ("Cook the crème anglaise between 82 and 85 °C.", "temperature", ["correct"]),
        ("Cook the crème anglaise to 82–85°C.", "temperature", ["correct"]),
        ("Cook the crème anglaise to 84 to 95 °C.", "temperature", ["unknown"]),
        ("Cook the crème anglaise to 92-95 °C.", "temperature", ["contradicted"]),
        # zero and below are numbers (PAPER.md 2.8: `min_c or min`)
        ("Keep the fridge at 0 °C.", "temperature", ["correct"]),
        ("The freezer runs at −20 °C.", "temperature", ["correct"]),
        # a small letter alone after one digit is cups
        ("Simmer 2 c stock with the bones for an hour.", "temperature", []),
        ("Simmer stock at 2 C.", "temperature", ["contradicted"]),
        ("Cook the crème anglaise to 92 c.", "temperature", ["contradicted"]),
        # a number without a scale, or of nothing the reference knows, is not decided
        ("Bake it at 190 degrees.", "temperature", []),
        ("Warm the plates to 70 °C.", "temperature", ["unknown"]),
        # local: another sentence's number or place decides nothing
        ("I love crème anglaise. My oven was at 240 °C.", "temperature", ["unknown"]),
        ("Socca is a pancake. I once lived in Lille.", "region", []),
        # whole words: eggplant is no egg, a Nicean no Nice
        ("Mayonnaise is made of oil and eggplant.", "ingredients", ["unknown"]),
        ("Tartiflette comes from Savoy.", "region", ["correct"]),
        ("Tartiflette does not come from Brittany.", "region", []),
        ("Unlike the tarts of Provence, tartiflette is from Savoy.", "region", ["correct"]),
        ("Tartiflette is good with a glass of Burgundy.", "region", []),
        ("A julienne is 2 mm thick.", "cut", ["correct"]),
        ("A julienne is 2 cm thick.", "cut", ["contradicted"]),
        ("Hard-boiled eggs take 10 minutes.", "time", ["correct"]),
        (
            "Deglazing means removing the fat from a pan, sauce or stock.",
            "technique",
            ["contradicted"],
        ),
        ("Is deglazing removing the fat from a pan, sauce or stock?", "technique", []),
    ],
)
def test_statements(text: str, check: str, expected: list[str]) -> None:
    assert verdicts(text, check) == expected


def test_nothing_decided_is_no_score() -> None:
    assert verify("Cooking is fun.").score is None
    assert verify("Larding tastes good at 190 degrees.").score is None
    right = "Socca comes from Nice."
    assert verify(right).score == pytest.approx(2 / 3)
    assert verify(f"{right} Tartiflette comes from Brittany.").score == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("text", "celsius"),
    [("2 c", None), ("1.25 c", None), ("1 f", None), ("2-3 c", None), ("2 C", 2), ("3 °c", 3),
     ("12 c", 12), ("63.5 c", 63.5), ("80c", 80), ("212f", 100)],
)  # fmt: skip
def test_a_small_letter_alone_needs_two_digits(text: str, celsius: float | None) -> None:
    found = readings(f"Take {text} of stock.", "temperature")
    assert [one.high for one in found] == ([] if celsius is None else [pytest.approx(celsius)])


@pytest.mark.parametrize("text", ["2 centimetres", "2 centimeter", "2 cm", "20 mm"])
def test_lengths_are_millimetres_however_they_are_written(text: str) -> None:
    (found,) = readings(f"slices of {text} each", "length")
    assert (found.low, found.high) == (20.0, 20.0)
