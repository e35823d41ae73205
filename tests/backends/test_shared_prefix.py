"""What all sequences begin with is read once, and what is measured stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends.sequences as sequences_module
from backends import open_backend
from backends.interface import HiddenPoint, LanguageModel
from backends.sequences import MIN_SHARED, padded_batches, shared_prefix
from models.directory import ModelDirectory
from tests.support.tiny_models import ARCHITECTURES

Tiny = Callable[..., ModelDirectory]
ROUNDING = 2e-5
"""Relative to the largest entry: other matrix shapes, and the recurrence of Qwen 3.5 cut at
another place. Measured up to 4e-6; a wrong prefix is off by 0.01 and more."""
GENERATOR = np.random.default_rng(5)
SHARED = tuple(int(i) for i in GENERATOR.integers(3, 200, 70))
"""Longer than the sliding window (8) and the DeltaNet chunk (64)."""
TAILS = [tuple(int(i) for i in GENERATOR.integers(3, 200, n)) for n in (3, 40, 11, 1)]
TEXTS = [SHARED + tail for tail in TAILS]
STARTS = [len(SHARED) + k for k in (1, 9, 10, 0)]
ENDS = [len(text) - 1 for text in TEXTS]


@pytest.fixture(params=[(e, a) for e in ("torch", "mlx") for a in ARCHITECTURES], ids="-".join)
def model(
    tiny_directory: Tiny, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LanguageModel]:
    engine, arch = request.param
    pytest.importorskip({"torch": "torch", "mlx": "mlx.core"}[engine])
    with open_backend(engine, tiny_directory(arch), dtype="float32") as m:
        # on a GPU a beginning this short is not worth a pass of its own
        monkeypatch.setattr(type(m), "prefix_saving", 0, raising=False)
        yield m


def off(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def read(model: LanguageModel) -> dict[str, np.ndarray]:
    layers = len({name.split(".")[2] for name in model.linear_modules()})
    points = [HiddenPoint(i, normed) for i in range(layers + 1) for normed in (True, False)]
    heads = model.head_outputs(TEXTS, STARTS, last_n=5)
    return {
        "states": model.hidden_states(TEXTS, ENDS, points),
        "first states": model.hidden_states(TEXTS, STARTS, points),
        "logprobs": np.concatenate(model.logprobs(TEXTS, STARTS)),
        "norms": np.concatenate(heads.norms, axis=1),
        "means": np.concatenate([part.reshape(len(TEXTS), -1) for part in heads.means], axis=1),
    }


def test_reading_it_once_changes_nothing(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = read(model)
    monkeypatch.setattr(sequences_module, "MIN_SHARED", 1 << 30)
    each = read(model)
    for what, values in each.items():
        assert off(once[what], values) < ROUNDING, what
    # negative twin: another id at the end of the beginning
    texts = [(*text[:69], 1, *text[70:]) for text in TEXTS]
    last = [HiddenPoint(1, True)]
    wanted = model.hidden_states(TEXTS, STARTS, last)
    assert off(model.hidden_states(texts, STARTS, last), wanted) > 0.01


def test_it_is_really_read_once(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that enter the first layer: the beginning once, and the padded tails."""
    if model.capabilities.engine == "torch":
        owner, name = type(model.backbone.layers[0]), "forward"
    else:
        owner, name = type(model._decoder.layers[0]), "__call__"
    seen, plain = [], getattr(owner, name)
    first = model.backbone.layers[0] if name == "forward" else model._decoder.layers[0]

    def counting(self: Any, states: Any, *args: Any, **kwargs: Any) -> Any:
        if self is first:
            seen.append(tuple(states.shape[:2]))
        return plain(self, states, *args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    model.hidden_states(TEXTS, ENDS, [HiddenPoint(1, True)])
    assert seen == [(1, 70), (4, 40)]


def test_rows_share_the_memory_of_their_copies_of_a_long_beginning() -> None:
    """64 rows of 10 ids behind 3,000 are 2 at a time, not 32."""
    rows = [[1] * 10] * 64
    assert {len(batch.places) for batch in padded_batches(rows, max_tokens=512)} == {32}
    sizes = [len(batch.places) for batch in padded_batches(rows, max_tokens=512, prefix=3000)]
    assert sizes == [2] * 32
    assert {len(b.places) for b in padded_batches(rows, max_tokens=512, prefix=25)} == {32}
    assert len(list(padded_batches(rows[:2], max_tokens=512, prefix=10_000))) == 2


class TestSharedPrefix:
    def test_is_common_and_before_all_that_is_asked_for(self) -> None:
        assert shared_prefix(TEXTS, ENDS) == 70
        assert shared_prefix(TEXTS, [69, 200, 200, 200]) == 69
        assert shared_prefix(TEXTS, [-1, 5, 5, 5]) == 0

    def test_must_save_what_reading_it_costs(self) -> None:
        assert shared_prefix(TEXTS, ENDS, saving=3 * 70) == 70
        assert shared_prefix(TEXTS, ENDS, saving=3 * 70 + 1) == 0

    def test_one_sequence_or_a_short_beginning_is_left_alone(self) -> None:
        assert shared_prefix(TEXTS[:1], ENDS[:1]) == 0
        assert shared_prefix([], []) == 0
        short = [(1,) * (MIN_SHARED - 1) + tail for tail in ((2, 3), (4, 5))]
        assert shared_prefix(short, [8, 8]) == 0

    def test_lists_and_tuples_may_be_mixed(self) -> None:
        assert shared_prefix([list(TEXTS[0]), TEXTS[1]], ENDS[:2]) == 70

    @given(st.lists(st.lists(st.integers(0, 1), min_size=12, max_size=40), min_size=2, max_size=6))
    def test_is_the_longest_possible(self, rows: list[list[int]]) -> None:
        needed = [len(row) - 1 for row in rows]
        n = shared_prefix(rows, needed)
        assert all(row[:n] == rows[0][:n] for row in rows) and n <= min(needed)
        longest = min(needed) == n or len({row[n] for row in rows}) > 1
        assert longest or n == 0
