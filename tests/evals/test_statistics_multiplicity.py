from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.statistics.multiplicity import holm

families = st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=12)


def test_a_family_worked_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1, which may not fall below the third.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(found) == ["a", "b", "c", "d"]
    adjusted = [found[name].adjusted for name in found]
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [found[name].rejected for name in found] == [True, False, False, True]
    assert [found[name].p for name in found] == [0.01, 0.04, 0.03, 0.005]


def test_the_values_are_those_of_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.stats.multitest import multipletests

    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # it collects in every call
    for p_values in np.random.default_rng(1).uniform(0, 0.2, size=(20, 7)):
        found = holm({str(i): float(p) for i, p in enumerate(p_values)})
        rejected, adjusted, _, _ = multipletests(p_values, method="holm")
        assert [row.adjusted for row in found.values()] == pytest.approx(adjusted.tolist())
        assert [row.rejected for row in found.values()] == rejected.tolist()


def test_alpha_is_heeded() -> None:
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert all(row.rejected for row in holm(p_values, alpha=0.07).values())
    assert not any(row.rejected for row in holm(p_values, alpha=0.01).values())


def test_a_true_effect_lightens_the_correction_of_the_rest() -> None:
    # What sets Holm apart from Bonferroni: 0.02 x 3 would not do.
    assert holm({"a": 1e-6, "b": 0.02, "c": 0.02})["b"].rejected
    assert not holm({"a": 0.02, "b": 0.02, "c": 0.02})["b"].rejected


@given(families)
def test_adjusted_values_follow_holms_definition(p_values) -> None:
    found = holm(p_values)
    ordered = sorted(p_values.values())
    for name, p in p_values.items():
        steps = [(len(ordered) - i) * q for i, q in enumerate(ordered) if q <= p]
        assert found[name].adjusted == pytest.approx(min(1.0, max(steps)), rel=1e-12)
        if abs(found[name].adjusted - 0.05) > 1e-9:
            assert found[name].rejected == (found[name].adjusted < 0.05)


def test_false_rejections_in_a_family_of_nulls_are_held_to_alpha() -> None:
    # 1000 families of 10; the standard error at 0.05 is 0.007. Uncorrected: 0.40.
    draws = np.random.default_rng(0).uniform(size=(1000, 10))
    families = [holm({str(i): p for i, p in enumerate(row)}) for row in draws]
    share = np.mean([any(row.rejected for row in family.values()) for family in families])
    assert 0.03 < share < 0.072
    assert (draws.min(axis=1) < 0.05).mean() > 0.3


def test_an_empty_family_is_empty() -> None:
    assert holm({}) == {}


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_impossible_p_values_are_named(p) -> None:
    with pytest.raises(ValueError, match="p-value of bad"):
        holm({"good": 0.5, "bad": p})


@pytest.mark.parametrize("alpha", [0.0, 1.0, float("nan")])
def test_impossible_levels_are_refused(alpha) -> None:
    with pytest.raises(ValueError, match="alpha"):
        holm({"a": 0.5}, alpha)
