"""Reading and intervening on mlx: hidden states, heads, log-probabilities, tempering, traces."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from mlx import nn

from backends.interface import (
    Float32,
    Head,
    HeadOutputs,
    HiddenPoint,
    LanguageModel,
    LoraConfig,
    Prompt,
    Sampling,
)
from backends.mlx import heads as heads_module
from backends.mlx import hidden as hidden_module
from backends.mlx import loss
from backends.mlx.decoder import Decoder
from backends.mlx.model import MlxModel, open_model
from backends.sequences import PaddedBatch, padded_batches
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.lora_models import batch_of, live_weights, with_lora
from tests.support.tiny_models import ARCHITECTURES
from tests.support.tolerances import tolerance
from tests.support.training_data import LENGTHS, example

Tiny = Callable[..., ModelDirectory]
SEQUENCES = [example(prompt, total).ids for prompt, total in LENGTHS]
STARTS = [prompt for prompt, _ in LENGTHS]
LONG = 3
"""Which of the sequences is longer than the DeltaNet chunk (64) and the sliding window (8)."""
BATCHED = 2e-5
"""Relative to the largest entry. Other matrix shapes, so other rounding: measured up to 4.3e-6
(Qwen 3.5, whose recurrence sums over time); real mistakes are off by 0.016 and more."""
SAME_MATH = 2e-6
"""Relative to the largest entry. A factor on the input or on the weights: one rounding of 6e-8
more in each product, measured up to 3.5e-7; real mistakes are off by 0.003 and more."""
ENGINES = 1e-4
"""Issue 4's bound for torch against mlx in float32, relative to the range: measured up to
2.3e-5; a head at 0.9 is off by 0.006 and more."""


def difference(found: Any, expected: Any) -> float:
    """Largest difference relative to the largest expected entry."""
    expected = np.asarray(expected, dtype=np.float64)
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def last(sequences: Sequence[Sequence[int]]) -> list[int]:
    return [len(ids) - 1 for ids in sequences]


def all_points(model: MlxModel) -> list[HiddenPoint]:
    layers = range(layer_count(model) + 1)
    return [HiddenPoint(layer, normed) for layer in layers for normed in (False, True)]


def layer_count(model: MlxModel) -> int:
    return len(model._decoder.layers)


def left_padded(sequences: Sequence[Sequence[int]], **limits: Any) -> Iterator[PaddedBatch]:
    """The mistake that every batch test must notice: padding where the model sees it."""
    for batch in padded_batches(sequences, **limits):
        width = batch.ids.shape[1]
        rolled = [np.roll(row, width - n) for row, n in zip(batch.ids, batch.lengths, strict=True)]
        yield replace(batch, ids=np.stack(rolled))


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tiny_directory: Tiny) -> Iterator[MlxModel]:
    with open_model(tiny_directory(request.param)) as opened:
        yield opened


@pytest.fixture
def llama(tiny_directory: Tiny) -> Iterator[MlxModel]:
    with open_model(tiny_directory("llama")) as opened:
        yield opened


# Hidden states -----------------------------------------------------------------------------


def head_of(model: MlxModel, state: Float32) -> Float32:
    """Logits of one state in numpy, soft-capped where the model does so."""
    decoder = model._decoder
    logits = np.array(decoder.head.module.weight, np.float64) @ state.astype(np.float64)
    cap = decoder.softcap
    return (logits if cap is None else cap * np.tanh(logits / cap)).astype(np.float32)


def test_the_head_of_h_last_gives_the_logits(model: MlxModel) -> None:
    n = layer_count(model)
    points = [HiddenPoint(n, True), HiddenPoint(n, False)]
    states = model.hidden_states(SEQUENCES, last(SEQUENCES), points)
    for ids, (normed, raw) in zip(SEQUENCES, states, strict=True):
        logits = model.logits(ids)[-1]
        assert difference(head_of(model, normed), logits) < BATCHED
        assert difference(head_of(model, raw), logits) > 100 * BATCHED


def test_soft_capping_is_part_of_the_head(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("gemma4")) as model:
        state = model.hidden_states([SEQUENCES[0]], [10], [HiddenPoint(4, True)])[0, 0]
        uncapped = np.array(model._decoder.head.module.weight) @ state
        assert difference(uncapped, model.logits(SEQUENCES[0])[10]) > 100 * BATCHED


def test_a_batch_gives_what_each_sequence_gives_alone(
    model: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = all_points(model)
    together = model.hidden_states(SEQUENCES, last(SEQUENCES), points)
    assert together.shape == (len(SEQUENCES), len(points), 96) and together.dtype == np.float32
    alone = np.concatenate(
        [model.hidden_states([ids], [len(ids) - 1], points) for ids in SEQUENCES]
    )
    for point in range(len(points)):
        assert difference(together[:, point], alone[:, point]) < BATCHED
    monkeypatch.setattr(hidden_module, "padded_batches", left_padded)
    ends = [max(map(len, SEQUENCES)) - 1] * len(SEQUENCES)
    wrong = hidden_module.hidden_states(model._decoder, SEQUENCES, ends, points[-1:])
    assert difference(wrong[:, 0], alone[:, -1]) > 100 * BATCHED


def test_points_come_in_the_order_asked_for(model: MlxModel) -> None:
    """Layer i is the output of layer i; normed is the final norm of it; 0 enters layer 0."""
    n, ids = layer_count(model), SEQUENCES[LONG]
    points = [HiddenPoint(n, True), HiddenPoint(0, False), HiddenPoint(2, False)]
    points += [HiddenPoint(2, True), HiddenPoint(0, False)]
    (states,) = model.hidden_states([ids], [65], points)
    trace = model.trace(ids)
    expected = [trace["norm"], trace["embedding"], trace["layers.1.output"]]
    for state, whole in zip(states, expected, strict=False):
        assert difference(state, whole[65]) < SAME_MATH
        assert difference(state, whole[64]) > 100 * SAME_MATH  # another position
    normed = np.array(model._decoder.backbone.norm(mx.array(trace["layers.1.output"][65])))
    assert difference(states[3], normed) < SAME_MATH
    assert (states[4] == states[1]).all()
    assert difference(states[2], trace["layers.0.output"][65]) > 100 * SAME_MATH


def test_a_later_id_changes_nothing_before_it(model: MlxModel) -> None:
    ids, point = SEQUENCES[LONG], [HiddenPoint(layer_count(model), True)]
    whole = model.hidden_states([ids], [40], point)
    assert difference(model.hidden_states([ids[:41]], [40], point), whole) < BATCHED
    assert difference(model.hidden_states([ids[:40]], [39], point), whole) > 100 * BATCHED


def test_layers_above_the_points_are_never_computed(
    llama: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the head, for anything that is only read."""

    def failing(*_: Any) -> Any:
        raise AssertionError("logits were computed")

    monkeypatch.setattr(Decoder, "logits", failing)
    broken = llama._decoder.layers[2].mlp.down_proj
    broken.weight = mx.full(broken.weight.shape, float("nan"))
    below = llama.hidden_states(SEQUENCES, last(SEQUENCES), [HiddenPoint(2, True)])
    above = llama.hidden_states(SEQUENCES, last(SEQUENCES), [HiddenPoint(3, True)])
    assert np.isfinite(below).all() and np.isnan(above).all()
    llama.head_outputs(SEQUENCES, STARTS, last_n=4)


def test_what_is_kept_of_a_batch_is_what_was_asked_for(
    llama: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[b, points, d], whatever the length: MLX frees the rest layer by layer."""
    ids = [tuple(SEQUENCES[LONG]) * 7] * 4  # 490 ids
    llama.hidden_states(ids, last(ids), [HiddenPoint(1, False)])
    peaks = []
    for points in ([HiddenPoint(3, True)], all_points(llama)):
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        llama.hidden_states(ids, last(ids), points)
        assert mx.get_active_memory() <= before + 4 * len(points) * 96 * 4
        peaks.append(mx.get_peak_memory() - before)
    whole_layer = 4 * 490 * 96 * 4
    assert peaks[1] < peaks[0] + whole_layer  # 8 points of 4 states, not 8 of 1,960


def test_states_are_float32_in_any_dtype(tiny_directory: Tiny) -> None:
    points = [HiddenPoint(3, True), HiddenPoint(1, False)]
    with open_model(tiny_directory("llama")) as model:
        exact = model.hidden_states(SEQUENCES[:2], last(SEQUENCES[:2]), points)
    with open_model(tiny_directory("llama"), dtype="bfloat16") as model:
        rounded = model.hidden_states(SEQUENCES[:2], last(SEQUENCES[:2]), points)
        outputs = model.head_outputs(SEQUENCES[:2], STARTS[:2], last_n=3)
        values = model.logprobs(SEQUENCES[:2], STARTS[:2])
    assert rounded.dtype == outputs.norms[0].dtype == values[0].dtype == np.float32
    # 8 bits of mantissa through 3 layers
    assert 1e-4 < difference(rounded, exact) < 0.1


@pytest.mark.parametrize("point", [HiddenPoint(4, True), HiddenPoint(-1, False)])
def test_layers_that_are_not_there_are_refused(llama: MlxModel, point: HiddenPoint) -> None:
    with pytest.raises(UserError, match=rf"layer {point.layer}: the model has 0 .* to 3"):
        llama.hidden_states([[5, 6]], [1], [point])


def test_sequences_that_cannot_be_read_are_refused(llama: MlxModel) -> None:
    point = [HiddenPoint(3, True)]
    with pytest.raises(UserError, match="sequence 1 is empty"):
        llama.hidden_states([[5], []], [0, 0], point)
    with pytest.raises(UserError, match=r"outside 0\.\.511"):
        llama.hidden_states([[5, 512]], [0], point)
    with pytest.raises(UserError, match="no position 2"):
        llama.hidden_states([[5, 6]], [2], point)
    with pytest.raises(UserError, match="the context holds 512"):
        llama.trace([5] * 513)
    with pytest.raises(UserError, match="must start between 0"):
        llama.head_outputs([[5, 6]], [2], last_n=1)
    with pytest.raises(UserError, match="must start between 1"):
        llama.logprobs([[5, 6]], [0])
    with pytest.raises(UserError, match="last_n is 0"):
        llama.head_outputs([[5, 6]], [1], last_n=0)
    assert llama.hidden_states([], [], point).shape == (0, 1, 96)
    assert llama.hidden_states([[5, 6]], [1], []).shape == (1, 0, 96)
    assert llama.logprobs([], []) == []
    assert llama.head_outputs([], [], last_n=1).norms[2].shape == (0, 6)


def test_nothing_is_left_behind_by_reading_or_an_error_in_it(
    model: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = [type(module) for module in model._decoder.network.modules()]
    model.hidden_states(SEQUENCES, last(SEQUENCES), all_points(model))
    model.head_outputs(SEQUENCES, STARTS, last_n=3)
    model.trace(SEQUENCES[0])
    monkeypatch.setattr(type(model._decoder.backbone.norm), "__call__", None)
    with pytest.raises(TypeError):
        model.hidden_states(SEQUENCES, last(SEQUENCES), all_points(model))
    assert [type(module) for module in model._decoder.network.modules()] == classes


# Head outputs ------------------------------------------------------------------------------


class Recorder(nn.Module):  # type: ignore[misc]
    """Keeps what enters a module, whole: another way to get it than the engine's."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.seen = inner, []

    def __call__(self, x: Any) -> Any:
        self.seen.append(np.array(x[0]))
        return self.inner(x)


def by_hand(model: MlxModel, last_n: int) -> HeadOutputs:
    """Each sequence alone, loops over tokens, float64."""
    heads = model.attention_heads()
    recorders = {i: Recorder(model._decoder.layers[i].self_attn.o_proj) for i in heads}
    for layer, recorder in recorders.items():
        model._decoder.layers[layer].self_attn.o_proj = recorder
    for ids in SEQUENCES:
        model.logits(ids)
    for layer, recorder in recorders.items():
        model._decoder.layers[layer].self_attn.o_proj = recorder.inner
    norms, means = [], []
    for layer, (count, width) in heads.items():
        rows: list[Any] = [
            [x[t].reshape(count, width).astype(float) for t in range(len(x))][start:][-last_n:]
            for x, start in zip(recorders[layer].seen, STARTS, strict=True)
        ]
        norms.append(np.array([np.mean([np.sqrt((t**2).sum(1)) for t in x], 0) for x in rows]))
        means.append(np.array([np.mean(x, 0) for x in rows]))
    return HeadOutputs(tuple(heads), tuple(norms), tuple(means), tuple(map(len, rows)))


@pytest.mark.parametrize("last_n", [1, 12, 100])
def test_head_outputs_equal_those_made_by_hand(model: MlxModel, last_n: int) -> None:
    found = model.head_outputs(SEQUENCES, STARTS, last_n=last_n)
    expected = by_hand(model, last_n)
    assert found.layers == expected.layers
    assert found.tokens == expected.tokens
    assert found.tokens == tuple(min(last_n, total - start) for start, total in LENGTHS)
    for ours, hand in zip(found.norms + found.means, expected.norms + expected.means, strict=True):
        assert ours.shape == hand.shape
        assert difference(ours, hand) < BATCHED
    other = by_hand(model, last_n + 1)
    if last_n < 100:
        assert all(
            difference(a, b) > 100 * BATCHED for a, b in zip(found.norms, other.norms, strict=True)
        )


def test_unmasked_padding_shows_in_head_outputs(
    model: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = model.head_outputs(SEQUENCES, STARTS, last_n=3)
    monkeypatch.setattr(heads_module, "padded_batches", left_padded)
    wrong = model.head_outputs(SEQUENCES, STARTS, last_n=3)
    assert all(
        difference(b, a) > 100 * BATCHED for a, b in zip(right.norms, wrong.norms, strict=True)
    )


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("llama", {0: (6, 16), 1: (6, 16), 2: (6, 16)}),
        ("qwen3", {0: (4, 32), 1: (4, 32), 2: (4, 32)}),
        ("qwen3_5", {3: (4, 32)}),
        ("gemma3", dict.fromkeys(range(4), (4, 32))),
        ("gemma4", {0: (4, 16), 1: (4, 32), 2: (4, 16), 3: (4, 32)}),
    ],
)
def test_heads_and_their_widths_are_each_layers_own(
    tiny_directory: Tiny, arch: str, expected: dict[int, tuple[int, int]]
) -> None:
    """Not hidden / heads, not one head_dim for all: KV-shared and global layers have heads too."""
    with open_model(tiny_directory(arch)) as model:
        assert model.attention_heads() == expected
        assert model.capabilities.heads and model.capabilities.hidden_states
        with_lora(model)
        assert model.attention_heads() == expected


# Log-probabilities -------------------------------------------------------------------------


def test_logprobs_equal_the_log_softmax_of_the_logits(
    model: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model.logprobs(SEQUENCES, STARTS)
    for ids, start, values in zip(SEQUENCES, STARTS, found, strict=True):
        logits = model.logits(ids).astype(np.float64)
        total = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
        expected = np.array([logits[t - 1, ids[t]] - total[t - 1] for t in range(start, len(ids))])
        assert values.shape == expected.shape and values.dtype == np.float32
        assert difference(values, expected) < BATCHED
        shifted = [logits[t, ids[t]] - total[t] for t in range(start, len(ids))]
        assert difference(values, shifted) > 100 * BATCHED
    whole = np.concatenate(found)
    monkeypatch.setattr(hidden_module, "padded_batches", left_padded)
    assert difference(np.concatenate(model.logprobs(SEQUENCES, STARTS)), whole) > 100 * BATCHED


def test_logprobs_run_the_head_on_response_positions_in_chunks(
    llama: MlxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    logits = Decoder.logits

    def counting(self: Decoder, hidden: Any) -> Any:
        rows.append(hidden.shape[0])
        return logits(self, hidden)

    whole = np.concatenate(llama.logprobs(SEQUENCES, STARTS))
    monkeypatch.setattr(Decoder, "logits", counting)
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 512 * 10)
    chunked = np.concatenate(llama.logprobs(SEQUENCES, STARTS))
    assert difference(chunked, whole) < BATCHED
    assert max(rows) == 10
    assert sum(rows) == sum(total - start for start, total in LENGTHS)


def test_logprobs_are_the_training_loss(llama: MlxModel) -> None:
    rows = [example(prompt, total) for prompt, total in LENGTHS]
    terms = llama.evaluate_loss(batch_of(rows))
    total = sum(float(values.sum(dtype=np.float64)) for values in llama.logprobs(SEQUENCES, STARTS))
    assert -total == pytest.approx(terms.nll_sum, rel=tolerance("loss"))


# Tempering ---------------------------------------------------------------------------------


def scale_columns(model: MlxModel, layer: int, head: int, factor: float) -> None:
    """Fold a factor into the weights: the columns of o_proj, and the rows of a LoRA's A."""
    width = model.attention_heads()[layer][1]
    count = model.attention_heads()[layer][0]
    columns = np.ones((count, width), np.float32)
    columns[head] = factor
    row = mx.array(columns.reshape(-1))
    module = model._decoder.layers[layer].self_attn.o_proj
    if "linear" in module:
        module.lora_a = module.lora_a * row[:, None]
        module = module.linear
    module.weight = module.weight * row


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, -1.5])
def test_scaling_a_head_equals_scaling_its_columns(model: MlxModel, factor: float) -> None:
    ids = SEQUENCES[LONG]
    plain = model.logits(ids)
    layer, (count, _) = list(model.attention_heads().items())[-1]
    head = count - 1
    with model.tempered({Head(layer, head): factor}):
        scaled = model.logits(ids)
    with model.tempered({Head(layer, head - 1): factor}):
        neighbour = model.logits(ids)
    assert (model.logits(ids) == plain).all()
    scale_columns(model, layer, head, factor)
    folded = model.logits(ids)
    assert difference(scaled, folded) < SAME_MATH
    assert difference(plain, folded) > 100 * SAME_MATH
    assert difference(neighbour, folded) > 100 * SAME_MATH


@pytest.mark.parametrize("first", [True, False], ids=["tempered first", "lora first"])
def test_a_lora_on_o_proj_is_scaled_with_it(model: MlxModel, first: bool) -> None:
    ids, layer = SEQUENCES[LONG], max(model.attention_heads())
    weights = live_weights(model)
    config = LoraConfig(4, 8.0, targets="all")
    if not first:
        model.attach_lora(config, weights)
    with model.tempered({Head(layer, 1): 0.25}):
        if first:
            model.attach_lora(config, weights)
        scaled = model.logits(ids)
    plain = model.logits(ids)
    assert all((model.lora_weights()[name] == weights[name]).all() for name in weights)
    scale_columns(model, layer, 1, 0.25)
    assert difference(scaled, model.logits(ids)) < SAME_MATH
    module = model._decoder.layers[layer].self_attn.o_proj
    module.lora_a = mx.array(weights[f"model.layers.{layer}.self_attn.o_proj.lora_A"].T)
    base_only = model.logits(ids)
    assert difference(base_only, scaled) > 100 * SAME_MATH
    assert difference(plain, scaled) > 100 * SAME_MATH


def test_a_factor_of_one_installs_nothing(model: MlxModel) -> None:
    ids = SEQUENCES[LONG]
    plain = model.logits(ids)
    classes = [type(module) for module in model._decoder.network.modules()]
    ones = {Head(i, h): 1.0 for i, (n, _) in model.attention_heads().items() for h in range(n)}
    with model.tempered(ones):
        assert [type(module) for module in model._decoder.network.modules()] == classes
        assert (model.logits(ids) == plain).all()
        layer = next(iter(model.attention_heads()))
        with model.tempered({Head(layer, 0): 1.001}):
            assert [type(module) for module in model._decoder.network.modules()] != classes
            assert not (model.logits(ids) == plain).all()


def test_contexts_nest_and_are_undone_exactly(model: MlxModel) -> None:
    ids, layer = SEQUENCES[LONG], max(model.attention_heads())
    head = Head(layer, 1)
    plain = model.logits(ids)
    with model.tempered({head: 0.5}):
        half = model.logits(ids)
    with model.tempered({head: 0.25}):
        quarter = model.logits(ids)
    with model.tempered({head: 0.5, Head(layer, 0): 0.9}):
        with model.tempered({head: 0.5, Head(layer, 0): 1 / np.float32(0.9)}):
            assert difference(model.logits(ids), quarter) < SAME_MATH
            with model.tempered({head: 4.0}):
                assert difference(model.logits(ids), plain) < SAME_MATH
        both = model.logits(ids)
        assert difference(both, half) > 100 * SAME_MATH
    assert (model.logits(ids) == plain).all()
    assert difference(quarter, half) > 100 * SAME_MATH


def test_contexts_that_close_in_another_order_leave_nothing(llama: MlxModel) -> None:
    plain = llama.logits(SEQUENCES[0])
    first, second = (llama.tempered({Head(layer, 1): 0.5}) for layer in (0, 2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with_second = llama.logits(SEQUENCES[0])
    second.__exit__(None, None, None)
    with llama.tempered({Head(2, 1): 0.5}):
        assert (llama.logits(SEQUENCES[0]) == with_second).all()
    assert (llama.logits(SEQUENCES[0]) == plain).all()


def test_an_exception_undoes_a_context(model: MlxModel) -> None:
    ids, layer = SEQUENCES[0], max(model.attention_heads())
    plain = model.logits(ids)
    classes = [type(module) for module in model._decoder.network.modules()]
    names = dict(model.linear_modules())

    def failing() -> None:
        with model.tempered({Head(layer, 0): 0.0}):
            assert not (model.logits(ids) == plain).all()
            assert model.linear_modules() == names
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert [type(module) for module in model._decoder.network.modules()] == classes
    assert (model.logits(ids) == plain).all()


def test_zero_on_all_heads_silences_attention(model: MlxModel) -> None:
    zeros = {Head(i, h): 0.0 for i, (n, _) in model.attention_heads().items() for h in range(n)}
    with model.tempered(zeros):
        trace = model.trace(SEQUENCES[LONG])
        outputs = model.head_outputs(SEQUENCES, STARTS, last_n=3)
    for layer in model.attention_heads():
        assert not trace[f"layers.{layer}.mixer"].any()
        assert not trace[f"layers.{layer}.o_proj"].any()
    assert not any(norm.any() for norm in outputs.norms)
    assert all(norm.all() for norm in model.head_outputs(SEQUENCES, STARTS, last_n=3).norms)


def test_everything_that_is_read_is_tempered(model: MlxModel) -> None:
    """The prompt, each new id, hidden states, log-probabilities and losses."""
    prompts = [Prompt(f"p{i}", ids) for i, ids in enumerate(SEQUENCES)]
    layer = min(model.attention_heads())
    point = [HiddenPoint(layer_count(model), True)]
    rows = [example(prompt, total) for prompt, total in LENGTHS]

    def read() -> list[Any]:
        # Hot, since the tiny Gemmas repeat their last id: the input's embedding is the head's.
        texts = model.generate(
            prompts, max_tokens=6, stop_ids=[], sampling=Sampling(temperature=8.0, top_k=50)
        )
        states = model.hidden_states(SEQUENCES, last(SEQUENCES), point)
        values = np.concatenate(model.logprobs(SEQUENCES, STARTS))
        return [texts, states, values, model.evaluate_loss(batch_of(rows)).nll_sum]

    plain = read()
    factors = {Head(layer, 0): 0.1, Head(layer, 2): -1.0}
    with model.tempered(factors):
        texts, states, values, nll = read()
    for (found_layer, head), factor in factors.items():
        scale_columns(model, found_layer, head, factor)
    folded = read()
    assert [c.ids for c in texts] == [c.ids for c in folded[0]] != [c.ids for c in plain[0]]
    assert difference(states, folded[1]) < BATCHED < difference(states, plain[1])
    assert difference(values, folded[2]) < BATCHED < difference(values, plain[2])
    assert nll == pytest.approx(folded[3], rel=tolerance("loss"))
    assert nll != pytest.approx(plain[3], rel=tolerance("loss"))


def test_a_head_that_is_not_there_is_refused_with_those_that_are(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("qwen3_5")) as model:
        with pytest.raises(UserError, match="layer 0 has no attention heads; layers that have: 3"):
            model.tempered({Head(0, 0): 0.5})
        with pytest.raises(UserError, match="layer 3 has heads 0 to 3, and no head 4"):
            model.tempered({Head(3, 4): 0.5})
        with pytest.raises(UserError, match="a finite number"):
            model.tempered({Head(3, 3): float("nan")})


def test_training_while_tempered_trains_the_tempered_model(llama: MlxModel) -> None:
    """Class swaps keep parameter names: the gradient is that of folded columns."""
    rows = [example(prompt, total) for prompt, total in LENGTHS[:3]]
    with_lora(llama)

    def gradient() -> dict[str, Any]:
        llama.accumulate(batch_of(rows))
        found = dict(llama._training()._gradient or {})
        llama.apply(0.0, None)
        return {name: np.array(value) for name, value in found.items()}

    with llama.tempered({Head(1, 2): 0.0}):
        tempered = gradient()
    plain = gradient()
    scale_columns(llama, 1, 2, 0.0)
    folded = gradient()
    # A zero that stands in A itself is trained; one in front of A is not.
    folded["model.layers.1.self_attn.o_proj.lora_A"][32:48] = 0.0
    for name, value in folded.items():
        assert difference(tempered[name], value) < BATCHED, name
        assert difference(plain[name], value) > 100 * BATCHED, name


# Traces ------------------------------------------------------------------------------------


def test_a_trace_names_every_stage_and_ends_in_the_logits(model: MlxModel) -> None:
    ids = SEQUENCES[LONG]
    trace = model.trace(ids)
    stages = ("norm", "mixer", "o_proj", "mlp", "output")
    layers = [f"layers.{i}.{stage}" for i in range(layer_count(model)) for stage in stages]
    assert list(trace) == ["embedding", *layers, "norm", "logits"]
    assert all(v.dtype == np.float32 and v.shape[0] == len(ids) for v in trace.values())
    assert (trace["logits"] == model.logits(ids)).all()
    for layer, (count, width) in model.attention_heads().items():
        mixed = trace[f"layers.{layer}.mixer"]
        assert mixed.shape[1] == count * width
        weight = np.array(model._decoder.layers[layer].self_attn.o_proj.weight)
        assert difference(mixed @ weight.T, trace[f"layers.{layer}.o_proj"]) < SAME_MATH
    embedding = np.array(model._decoder.backbone.embed_tokens.weight)[list(ids)]
    scaled = trace["embedding"] / embedding  # Gemma multiplies by sqrt(96)
    assert np.allclose(scaled, scaled[0, 0], rtol=1e-5)


# Against torch -----------------------------------------------------------------------------


def read_all(model: LanguageModel, n_layers: int) -> dict[str, Any]:
    points = [HiddenPoint(layer, normed) for layer in range(n_layers + 1) for normed in (0, 1)]
    heads = model.attention_heads()
    outputs = model.head_outputs(SEQUENCES, STARTS, last_n=12)
    ids, layer = SEQUENCES[LONG], max(heads)
    found: dict[str, Any] = {"logits": model.logits(ids)}
    states = model.hidden_states(SEQUENCES, last(SEQUENCES), points)
    found |= {f"hidden {point}": states[:, i] for i, point in enumerate(points)}
    for number, (norm, mean) in zip(
        outputs.layers, zip(outputs.norms, outputs.means, strict=True), strict=True
    ):
        found |= {f"norm {number}": norm, f"mean {number}": mean}
    found["logprobs"] = np.concatenate(model.logprobs(SEQUENCES, STARTS))
    for factor in (0.0, 0.5, 0.9):
        with model.tempered({Head(layer, 1): factor, Head(min(heads), 0): factor}):
            found[f"tempered {factor}"] = model.logits(ids)
    found |= {f"trace {name}": value for name, value in model.trace(ids).items()}
    return found


@pytest.mark.parametrize("lora", [False, True], ids=["base", "lora"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_torch_reads_the_same(tiny_directory: Tiny, arch: str, lora: bool) -> None:
    pytest.importorskip("torch")
    from backends.torch.model import open_model as open_torch

    directory = tiny_directory(arch)
    with open_model(directory) as ours, open_torch(directory) as theirs:
        assert ours.attention_heads() == theirs.attention_heads()
        weights = live_weights(ours)
        if lora:
            ours.attach_lora(LoraConfig(4, 8.0, targets="all"), weights)
            theirs.attach_lora(LoraConfig(4, 8.0, targets="all"), weights)
        found, expected = (read_all(model, layer_count(ours)) for model in (ours, theirs))
    assert list(found) == list(expected)
    for name in found:
        assert difference(found[name], expected[name]) < ENGINES, name
    assert difference(found["tempered 0.9"], expected["logits"]) > ENGINES
