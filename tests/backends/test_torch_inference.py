"""Reading on torch: hidden states, log-probabilities, traces."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import backends.torch.hidden as reading
from backends.interface import Head, HiddenPoint
from backends.torch.attention import plain_attention
from backends.torch.heads import o_proj
from backends.torch.model import TorchModel, open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.tiny_models import ARCHITECTURES
from tests.support.torch_reading import (
    IDS,
    ROUNDING,
    SEQUENCES,
    STARTS,
    entering,
    h_last,
    hooks_of,
    layers_of,
    off,
    some_head,
)

Tiny = Callable[..., ModelDirectory]


@pytest.fixture(params=ARCHITECTURES)
def model(tiny_directory: Tiny, request: pytest.FixtureRequest) -> Iterator[TorchModel]:
    """Every architecture."""
    with open_model(tiny_directory(request.param), device=DEVICE) as opened:
        yield opened


@pytest.fixture
def llama(tiny_directory: Tiny) -> Iterator[TorchModel]:
    with open_model(tiny_directory("llama"), device=DEVICE) as opened:
        yield opened


def every_point(model: TorchModel) -> list[HiddenPoint]:
    layers = range(layers_of(model) + 1)
    return [HiddenPoint(layer, normed) for layer in layers for normed in (False, True)]


def with_head(head: Callable[[Any], Any], states: Any) -> Any:
    """Logits of states on the host."""
    return head(torch.from_numpy(states).to(DEVICE)).cpu().numpy()


def ends() -> list[int]:
    return [len(ids) - 1 for ids in SEQUENCES]


# Hidden states ----------------------------------------------------------------------------


def test_the_head_on_h_last_gives_the_logits(model: TorchModel) -> None:
    states = model.hidden_states([IDS], [len(IDS) - 1], h_last(model))
    expected = model.logits(IDS)[-1]
    assert off(with_head(model.head, states[0, 0]), expected) < ROUNDING
    # negative twins: the state before the norm; the head without Gemma 4's soft-capping
    before = model.hidden_states([IDS], [len(IDS) - 1], [HiddenPoint(layers_of(model), False)])
    assert off(with_head(model.head, before[0, 0]), expected) > 0.01
    if model.config.to_dict().get("final_logit_softcapping"):
        assert off(with_head(model._head, states[0, 0]), expected) > 0.01


def test_a_batch_gives_the_states_of_each_sequence_alone(model: TorchModel) -> None:
    points = every_point(model)
    together = model.hidden_states(SEQUENCES, ends(), points)
    assert together.shape == (5, len(points), 96)
    for place, ids in enumerate(SEQUENCES):
        alone = model.hidden_states([ids], [len(ids) - 1], points)[0]
        for k in range(len(points)):
            assert off(together[place, k], alone[k]) < ROUNDING
        # negative twin: the neighbouring position
        beside = model.hidden_states([ids], [len(ids) - 2], points)[0]
        assert off(beside, alone) > 0.01


def test_padding_on_the_left_that_is_not_masked_would_be_noticed(model: TorchModel) -> None:
    """The negative twin of the batch test: what right padding and the mask are for."""
    alone = model.hidden_states([IDS], [len(IDS) - 1], h_last(model))[0, 0]
    padded = torch.tensor([[0] * 9 + list(IDS)], device=DEVICE)
    with torch.inference_mode():
        assert off(model.hidden(padded)[0, -1].cpu().numpy(), alone) > 0.01


def test_small_batches_change_nothing(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.hidden_states(SEQUENCES, STARTS, every_point(model))
    batches = reading.padded_batches
    monkeypatch.setattr(reading, "padded_batches", lambda rows, **_: batches(rows, max_tokens=100))
    assert len(list(reading.padded_batches(SEQUENCES))) == 4
    assert off(model.hidden_states(SEQUENCES, STARTS, every_point(model)), whole) < ROUNDING


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_points_are_those_of_transformers(tiny_directory: Tiny, arch: str) -> None:
    """transformers' last hidden state is the one after the final norm; the others are not."""
    from transformers import AutoModelForCausalLM

    directory = tiny_directory(arch)
    plain = AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32)
    plain = plain.eval().to(DEVICE)
    with torch.no_grad():
        ids = torch.tensor([IDS], device=DEVICE)
        output = plain(input_ids=ids, output_hidden_states=True)
        states = [layer[0, 40] for layer in output.hidden_states]
        normed = [plain.model.norm(layer).cpu().numpy() for layer in states]
    theirs = [layer.cpu().numpy() for layer in states]
    with open_model(directory, device=DEVICE) as model, plain_attention(model.config):
        n = layers_of(model)
        raw = model.hidden_states([IDS], [40], [HiddenPoint(i, False) for i in range(n + 1)])[0]
        ours = model.hidden_states([IDS], [40], [HiddenPoint(i, True) for i in range(n + 1)])[0]
    for layer in range(n):
        assert np.array_equal(raw[layer], theirs[layer])
        assert off(ours[layer], normed[layer]) < ROUNDING
        assert off(raw[layer + 1], theirs[layer]) > 0.01  # negative twin: one layer on
    assert off(ours[n], theirs[n]) < ROUNDING
    assert off(raw[n], theirs[n]) > 0.01


def test_only_what_was_asked_is_kept_and_no_logits(
    llama: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    watch = reading.watch

    def spy(model: TorchModel, layer: int, see: Any) -> Any:
        seen.append(layer)
        return watch(model, layer, see)

    monkeypatch.setattr(reading, "watch", spy)
    monkeypatch.setattr(llama, "head", lambda hidden: pytest.fail("logits were computed"))
    points = [HiddenPoint(2, False), HiddenPoint(2, True), HiddenPoint(2, False)]
    states = llama.hidden_states([IDS, IDS], [3, 60], points)
    assert seen == [2]
    assert np.array_equal(states[:, 0], states[:, 2])
    assert llama.hidden_states([], [], points).shape == (0, 3, 96)
    assert llama.hidden_states([IDS], [0], []).shape == (1, 0, 96)


def test_hooks_are_removed_also_after_an_error(
    llama: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hooks_of(llama)
    llama.hidden_states([IDS], [3], every_point(llama))
    llama.head_outputs([IDS], [3], last_n=2)
    llama.trace(IDS)
    monkeypatch.setattr(llama, "hidden", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("x")))
    for read in (
        lambda: llama.hidden_states([IDS], [3], every_point(llama)),
        lambda: llama.head_outputs([IDS], [3], last_n=2),
        lambda: llama.trace(IDS),
    ):
        with pytest.raises(RuntimeError, match="x"):
            read()
    assert hooks_of(llama) == before


def test_wrong_requests_get_one_line(llama: TorchModel) -> None:
    points = h_last(llama)
    with pytest.raises(UserError, match="no position 70 in 70 ids"):
        llama.hidden_states([IDS], [70], points)
    with pytest.raises(UserError, match="sequence 1 is empty"):
        llama.hidden_states([IDS, []], [0, 0], points)
    with pytest.raises(UserError, match=r"outside 0\.\.511"):
        llama.hidden_states([[512]], [0], points)
    with pytest.raises(UserError, match="the context holds 512"):
        llama.hidden_states([[1] * 513], [0], points)
    for layer in (-1, 4):
        with pytest.raises(UserError, match=f"no hidden state of layer {layer}: .* 1 to 3"):
            llama.hidden_states([IDS], [0], [HiddenPoint(layer, False)])
    with pytest.raises(UserError, match="last_n is 0"):
        llama.head_outputs([IDS], [3], last_n=0)
    with pytest.raises(UserError, match="must start between 0 and 69"):
        llama.head_outputs([IDS], [70], last_n=2)
    with pytest.raises(UserError, match="must start between 1 and 69"):
        llama.logprobs([IDS], [0])


# Log-probabilities ------------------------------------------------------------------------


def test_logprobs_are_log_softmax_at_the_id_before(
    model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model.logprobs(SEQUENCES, STARTS)
    for ids, start, values in zip(SEQUENCES, STARTS, found, strict=True):
        every = torch.log_softmax(torch.from_numpy(model.logits(ids)).double(), -1).numpy()
        places = np.arange(start, len(ids))
        expected = every[places - 1, np.array(ids)[places]]
        assert values.dtype == np.float32 and values.shape == expected.shape
        # nats, of values to 50: float32 logits of Qwen3.5, whose recurrence sums over time, differ
        # between a batch and one row; measured 7.0e-5 and, with OpenBLAS preloaded, 2.0e-4
        assert np.abs(values - expected).max() < 5e-4
        wrong = every[places, np.array(ids)[places]]  # negative twin: the logits of the id itself
        assert np.abs(values - wrong).max() > 0.1
    monkeypatch.setattr(reading, "HEAD_CHUNK_ELEMENTS", 3 * 512)
    seen, head = [], model.head
    monkeypatch.setattr(model, "head", lambda hidden: (seen.append(len(hidden)), head(hidden))[1])
    for one, other in zip(model.logprobs(SEQUENCES, STARTS), found, strict=True):
        assert np.abs(one - other).max() < 2e-5
    assert max(seen) == 3
    assert sum(seen) == sum(map(len, found))  # the head saw response positions only
    assert model.logprobs([], []) == []


# Traces and dtypes ------------------------------------------------------------------------


def test_a_trace_has_every_stage_in_order(model: TorchModel) -> None:
    stages, n = model.trace(IDS), layers_of(model)
    parts = ("norm", "mixer", "o_proj", "mlp", "output")
    names = [f"layers.{i}.{part}" for i in range(n) for part in parts]
    assert list(stages) == ["embedding", *names, "norm", "logits"]
    assert all(s.dtype == np.float32 and len(s) == len(IDS) for s in stages.values())
    assert np.array_equal(stages["logits"], model.logits(IDS))
    with torch.inference_mode():
        assert np.array_equal(with_head(model.head, stages["norm"]), stages["logits"])
    points = [HiddenPoint(layer, False) for layer in range(n + 1)]
    states = model.hidden_states([IDS], [33], points)[0]
    outputs = [stages["embedding"], *(stages[f"layers.{i}.output"] for i in range(n))]
    for state, stage in zip(states, outputs, strict=True):
        assert np.array_equal(state, stage[33])
    for layer, (heads, dim) in model.attention_heads().items():
        mixer = stages[f"layers.{layer}.mixer"].reshape(-1, heads, dim)
        assert np.array_equal(mixer, entering(model, IDS, layer))
        weight = o_proj(model.backbone, layer).weight.cpu().numpy()
        product = stages[f"layers.{layer}.mixer"] @ weight.T
        assert off(product, stages[f"layers.{layer}.o_proj"]) < ROUNDING


def test_a_trace_of_llama_adds_up(llama: TorchModel) -> None:
    stages, before = llama.trace(IDS), "embedding"
    for i in range(3):
        attention, mlp = stages[f"layers.{i}.o_proj"], stages[f"layers.{i}.mlp"]
        total = stages[before] + attention + mlp
        assert off(total, stages[f"layers.{i}.output"]) < 1e-6
        assert off(total - mlp, stages[f"layers.{i}.output"]) > 0.01
        before = f"layers.{i}.output"


def test_a_trace_shows_where_two_models_part(model: TorchModel) -> None:
    layer = max(model.attention_heads())
    plain = model.trace(IDS)
    with model.tempered({Head(layer, 1): 0.5}):
        other = model.trace(IDS)
    parted = [name for name, stage in plain.items() if not np.array_equal(stage, other[name])]
    assert parted[0] == f"layers.{layer}.mixer"
    assert parted[-1] == "logits"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_float32(tiny_directory: Tiny, dtype: Any) -> None:
    """Rounding to 8 or 11 bits at every layer: within a few percent, and not equal."""
    for arch in ARCHITECTURES:
        directory, results = tiny_directory(arch), []
        for each in ("float32", dtype):
            with open_model(directory, dtype=each, device=DEVICE) as model:
                outputs = model.head_outputs(SEQUENCES, STARTS, last_n=4)
                with model.tempered({some_head(model): 0.9}):
                    tempered = model.hidden_states(SEQUENCES, ends(), h_last(model))
                logprobs = np.concatenate(model.logprobs(SEQUENCES, STARTS))
                stage = model.trace(IDS)["layers.0.output"]
                results.append([outputs.norms[0], outputs.means[0], tempered, logprobs, stage])
        for exact, found in zip(*results, strict=True):
            assert 0 < off(found, exact) < 0.1  # measured at most 0.045, bfloat16
