"""The disposition meter: which ids count, the same numbers on every engine, scores and shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from backends import open_backend
from backends.interface import LanguageModel
from evals.items.load import built_in
from evals.items.records import MeterItem
from evals.meter import (
    AXES,
    EncodedPair,
    MeterReading,
    choose,
    encode_pair,
    ids_sha256,
    read_pairs,
)
from evals.meter_scores import mean_interval, scores, shifts, sign_flip_p
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.tiny_models import ARCHITECTURES

Tiny = Callable[..., ModelDirectory]
TOLERANCE = 1e-4
"""Nats per token of one continuation, float32 on both sides: sums in another order, averaged over
25 to 160 ids. Measured: tiny models at most 8.4e-6 (Qwen3.5, torch against MLX), 3.3e-6 with
llama.cpp; SmolLM2-135M 1.1e-5 against torch on MLX and on llama.cpp. The wheel's own BLAS is less
exact than OpenBLAS. One norm of one layer off by one percent costs 1.7e-3 (Gemma 3) and more."""
ITEMS = built_in("meter", MeterItem)
THREE_TURNS = next(item for item in ITEMS if len(item.context) == 3)


def pairs_of(directory: ModelDirectory, per_axis: int) -> list[EncodedPair]:
    encoder = ChatEncoder(directory)
    chosen = [*choose(ITEMS, AXES, per_axis), THREE_TURNS]
    return [encode_pair(encoder, item) for item in chosen]


def numbers(model: LanguageModel, pairs: list[EncodedPair]) -> np.ndarray:
    """[items, 2] nats per token."""
    return np.array([(one.positive, one.negative) for one in read_pairs(model, pairs)])


# -- ids ------------------------------------------------------------------------------------------


def test_the_ids_are_the_continuations_without_its_end(smollm_directory: ModelDirectory) -> None:
    encoder = ChatEncoder(smollm_directory)
    for item in (ITEMS[0], THREE_TURNS):
        pair = encode_pair(encoder, item)
        for side, text in ((pair.positive, item.positive), (pair.negative, item.negative)):
            assert encoder.decode(side.ids[side.start :]) == text
            assert encoder.end_of_turn_id not in side.ids[side.start :]
            before = encoder.decode(side.ids[: side.start])
            assert all(turn.content in before for turn in item.context)
            assert before.endswith("assistant\n")
        assert pair.positive.ids[: pair.positive.start] == pair.negative.ids[: pair.negative.start]


def test_a_reading_is_the_mean_of_log_softmax_at_these_ids(tiny_directory: Tiny) -> None:
    directory = tiny_directory("llama")
    pair = pairs_of(directory, 1)[0]
    with open_backend("torch", directory) as model:
        (found,) = read_pairs(model, [pair])
        for side, value in ((pair.positive, found.positive), (pair.negative, found.negative)):
            logits = model.logits(side.ids).astype(np.float64)
            logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            by_hand = [logs[at - 1, side.ids[at]] for at in range(side.start, len(side.ids))]
            assert value == pytest.approx(float(np.mean(by_hand)), abs=2e-6)
    assert found.contrast == found.positive - found.negative
    assert found.positive_tokens == len(pair.positive.ids) - pair.positive.start
    assert (found.item_id, found.axis, found.domain) == (
        pair.item.id,
        pair.item.axis,
        pair.item.domain,
    )


def test_what_was_read_is_known_by_its_hash(tiny_directory: Tiny) -> None:
    pairs = pairs_of(tiny_directory("llama"), 1)
    assert ids_sha256(pairs) == ids_sha256(list(pairs))
    assert ids_sha256(pairs) != ids_sha256(pairs[::-1])


def test_a_limit_takes_the_first_of_each_axis() -> None:
    chosen = choose(ITEMS, ("deferring", "hedging"), 8)
    assert [item.axis for item in chosen] == ["hedging"] * 8 + ["deferring"] * 8
    assert len({item.domain for item in chosen[:8]}) == 8
    assert len(choose(ITEMS, AXES, None)) == len(ITEMS)


def test_numbers_that_are_none_are_refused(tiny_directory: Tiny) -> None:
    class Broken:
        def logprobs(self, sequences: list[object], starts: list[int]) -> list[np.ndarray]:
            return [np.array([-1.0, np.nan], np.float32) for _ in sequences]

    pairs = pairs_of(tiny_directory("llama"), 1)
    with pytest.raises(UserError, match=f"item {pairs[0].item.id}: .* not a finite number"):
        read_pairs(Broken(), pairs)  # type: ignore[arg-type]


# -- engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_torch_and_mlx_read_the_same(tiny_directory: Tiny, arch: str) -> None:
    pytest.importorskip("mlx.core")
    directory = tiny_directory(arch)
    pairs = pairs_of(directory, 1)
    with open_backend("torch", directory) as one, open_backend("mlx", directory) as other:
        ours, theirs = numbers(one, pairs), numbers(other, pairs)
        assert np.abs(ours - theirs).max() < TOLERANCE
        norm = other._decoder.backbone.layers[1].post_attention_layernorm  # type: ignore[attr-defined]
        norm.weight = norm.weight * 1.01  # the negative twin: one norm off by one percent
        assert np.abs(ours - numbers(other, pairs)).max() > 10 * TOLERANCE


def test_llamacpp_reads_the_same(tiny_directory: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from backends.llamacpp.exact import open_exact

    directory = tiny_directory("llama")
    pairs = pairs_of(directory, 1)
    with open_backend("torch", directory) as one:
        ours = numbers(one, pairs)
    with open_exact(directory, tmp_path, threads=1) as other:
        assert np.abs(ours - numbers(other, pairs)).max() < TOLERANCE


@pytest.fixture(scope="module")
def smollm_pairs(smollm_directory: ModelDirectory) -> list[EncodedPair]:
    return pairs_of(smollm_directory, 1)


@pytest.fixture(scope="module")
def on_torch(
    smollm_directory: ModelDirectory, smollm_pairs: list[EncodedPair]
) -> Iterator[np.ndarray]:
    with open_backend("torch", smollm_directory) as model:
        yield numbers(model, smollm_pairs)


def test_smollm_reads_the_same_on_mlx(
    smollm_directory: ModelDirectory, smollm_pairs: list[EncodedPair], on_torch: np.ndarray
) -> None:
    pytest.importorskip("mlx.core")
    with open_backend("mlx", smollm_directory) as model:
        assert np.abs(on_torch - numbers(model, smollm_pairs)).max() < TOLERANCE


@pytest.mark.slow
def test_smollm_reads_the_same_on_llamacpp(
    smollm_directory: ModelDirectory,
    smollm_pairs: list[EncodedPair],
    on_torch: np.ndarray,
    tmp_path: Path,
) -> None:
    pytest.importorskip("llama_cpp")
    from backends.llamacpp.exact import open_exact

    with open_exact(smollm_directory, tmp_path, threads=1) as model:
        assert np.abs(on_torch - numbers(model, smollm_pairs)).max() < TOLERANCE


# -- scores ---------------------------------------------------------------------------------------


def readings(contrasts: list[float], axis: str = "hedging", tokens: int = 30) -> list[MeterReading]:
    return [
        MeterReading(f"{axis}-{i}", axis, "code", value - 2.0, -2.0, tokens, 28)
        for i, value in enumerate(contrasts)
    ]


def test_a_score_is_the_mean_contrast_of_an_axis_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 0.5, size=100).tolist()
    found = scores([*readings(values), *readings([0.1], "deferring")])
    assert list(found) == ["hedging", "deferring"]
    hedging = found["hedging"]
    assert hedging.mean == pytest.approx(np.mean(values))
    assert hedging.interval is not None and hedging.deviation is not None
    # for 100 normal values a BCa interval is the t interval to about a tenth of its width
    half = 1.984 * hedging.deviation / 10
    assert hedging.interval.low == pytest.approx(hedging.mean - half, abs=0.2 * half)
    assert hedging.interval.high == pytest.approx(hedging.mean + half, abs=0.2 * half)
    assert hedging.positive_share == pytest.approx(np.mean(np.array(values) > 0))
    assert (hedging.positive_tokens, hedging.negative_tokens) == (30, 28)
    assert found["deferring"].interval is None and found["deferring"].deviation is None


def test_a_shift_is_taken_item_by_item() -> None:
    """A small effect under a large spread over items: invisible in the scores, plain in pairs."""
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, size=60)
    edited = base + 0.05 + rng.normal(0, 0.05, size=60)
    found = shifts(readings(base.tolist()), readings(edited.tolist()))["hedging"]
    assert found.mean == pytest.approx(float((edited - base).mean()))
    assert found.interval is not None and found.interval.low > 0
    assert found.p_value == pytest.approx(1 / 5000)  # no sign arrangement of 9,999 is as far out
    assert found.up == int((edited > base).sum()) and found.unchanged == 0


def test_no_effect_has_exactly_no_shift() -> None:
    same = readings([0.1, 0.4, -0.2])
    found = shifts(same, same)["hedging"]
    assert (found.mean, found.interval, found.p_value) == (0.0, None, 1.0)
    assert (found.up, found.unchanged) == (0, 3)


def test_p_values_are_corrected_for_the_axes() -> None:
    rng = np.random.default_rng(2)
    noise = {axis: rng.normal(0, 1, size=40) for axis in AXES}
    base = [one for axis in AXES for one in readings([0.0] * 40, axis)]
    edited = [one for axis in AXES for one in readings(noise[axis].tolist(), axis)]
    found = shifts(base, edited)
    smallest = min(found.values(), key=lambda one: one.p_value)
    assert smallest.p_holm == pytest.approx(min(1.0, 3 * smallest.p_value))


def test_the_sign_flip_test_is_exact_for_few_items() -> None:
    # of 2^5 arrangements only all-plus and all-minus are as extreme
    assert sign_flip_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)


def test_other_items_or_other_ids_are_not_paired() -> None:
    one = readings([0.1, 0.2])
    for other in (one[::-1], one[:1], readings([0.1, 0.2], tokens=31)):
        with pytest.raises(ValueError, match="unpaired"):
            shifts(one, other)


def test_a_missing_value_is_no_reason_to_leave_the_interval_out() -> None:
    with pytest.raises(ValueError, match="missing"):
        mean_interval(np.array([0.1, np.nan]), 0.95)
