"""LoRA over quantised weights on MLX: the same numbers as over the weights they stand for."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from mlx import nn

from backends import open_backend
from backends.interface import Batch, Float32, HiddenPoint, Prompt
from backends.lora import initial_weights, load_adapter, save_adapter
from backends.memory import estimate_training, model_size
from backends.mlx.model import MlxModel, open_model
from backends.mlx.quantise import packed_layers
from backends.reference import ReferenceModel, compute_reference
from backends.training import DpoConfig, TrainConfig, train, train_preferences
from backends.verification import QUANTISED, verify
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.gguf.export import export_gguf
from models.store import prepare
from tests.support.lora_models import LORA, batch_of, with_lora
from tests.support.preference_pairs import moved, pairs
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import examples

Tiny = Callable[..., ModelDirectory]
TOLERANCE = 2e-5
"""Relative. Both multiply in float32 with the same packed values, summed in another order."""
GRADIENT = 2e-4
"""Relative norm: rounding of the forward pass, carried through every layer of the backward."""


def unpacked(module: Any) -> Any:
    return mx.dequantize(
        module.weight, scales=module.scales, biases=module.biases,
        group_size=module.group_size, bits=module.bits, mode=module.mode,
    )  # fmt: skip


def dequantised_twin(directory: ModelDirectory, packed: MlxModel) -> MlxModel:
    """The model in plain float32 layers that hold exactly what ``packed`` stands for."""
    twin = open_model(directory)
    theirs = dict(packed._decoder.network.named_modules())
    for path, module in twin._decoder.network.named_modules():
        if isinstance(theirs.get(path), nn.QuantizedLinear):
            module.weight = unpacked(theirs[path])
    return twin


def gradients(model: MlxModel, batch: Batch) -> tuple[float, dict[str, Float32]]:
    terms = model.accumulate(batch)
    assert model._trainer is not None and model._trainer._gradient is not None
    found = {name: np.array(value) for name, value in model._trainer._gradient.items()}
    return terms.nll_sum / terms.tokens, found


def norm_of(arrays: dict[str, Float32]) -> float:
    return float(
        np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays.values()))
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_the_dequantised_model(
    tiny_directory: Tiny, arch: str, bits: int
) -> None:
    directory, batch = tiny_directory(arch), batch_of(examples(4))
    with open_model(directory, quantise=bits) as packed:
        twin = dequantised_twin(directory, packed)
        with with_lora(twin):
            expected, wanted = gradients(twin, batch)
        loss, found = gradients(with_lora(packed), batch)
        assert loss == pytest.approx(expected, rel=TOLERANCE)
        off = norm_of({name: found[name] - wanted[name] for name in wanted})
        assert off < GRADIENT * norm_of(wanted)
    with with_lora(open_model(directory)) as plain:  # negative twin: quantising changes the model
        _, other = gradients(plain, batch)
        off = norm_of({name: other[name] - wanted[name] for name in wanted})
        assert off > 10 * GRADIENT * norm_of(wanted)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_reading_and_generating_work_over_packed_layers(tiny_directory: Tiny, arch: str) -> None:
    directory = tiny_directory(arch)
    sequences = [tuple(range(5, 30)), tuple(range(40, 47))]
    with open_model(directory, quantise=8) as packed:
        twin = dequantised_twin(directory, packed)
        assert packed.linear_modules() == twin.linear_modules()
        assert packed.attention_heads() == twin.attention_heads()
        points = [HiddenPoint(len(twin._decoder.layers), True)]
        one, two = (m.hidden_states(sequences, [24, 6], points) for m in (packed, twin))
        assert np.abs(one - two).max() < TOLERANCE * np.ptp(two)
        for ours, theirs in zip(
            packed.logprobs(sequences, [3, 3]), twin.logprobs(sequences, [3, 3]), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=1e-4)
        prompts = [Prompt("a", (5, 6, 7, 8))]
        texts = [m.generate(prompts, max_tokens=6, stop_ids=())[0].ids for m in (packed, twin)]
        assert texts[0] == texts[1]


def test_only_decoder_layers_are_packed_and_it_is_described(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("gemma4"), quantise=4) as model:
        decoder = model._decoder
        found = model.describe()["quantised_base"]
        assert found["bits"] == [4] and found["group_size"] == [32, 64]
        assert found["linear_layers"] == len(packed_layers(decoder)) > 20
        # Gemma 4's per-layer projections are 8 wide here, which no group size divides
        assert found["linear_layers_kept"] == 4
        assert found["head"] is False and not decoder.head.quantised
    with open_model(tiny_directory("llama"), quantise=4) as model:
        packed = model.describe()["quantised_base"]["weight_bytes"]
        before = with_lora(model).describe()["trainable_share"]
    with open_model(tiny_directory("llama")) as model:
        assert "quantised_base" not in model.describe()
        assert with_lora(model).describe()["trainable_share"] == before
        whole = sum(v.nbytes for _, v in mx_flat(model))
    assert packed < 0.5 * whole


def mx_flat(model: MlxModel) -> list[tuple[str, Any]]:
    from mlx.utils import tree_flatten

    return list(tree_flatten(model._decoder.network.parameters()))


def test_training_lowers_the_loss_and_the_adapter_comes_back(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    directory, rows = tiny_directory("llama"), examples(6)
    config = TrainConfig(LORA, epochs=6, learning_rate=1e-2, micro_batch_size=3)
    with open_model(directory, quantise=4) as model:
        result = train(model, rows, rows[:2], config, directory=tmp_path / "train")
        assert result.steps[-1].loss < 0.95 * result.steps[0].loss
        assert result.summary["identity"]["model"]["quantised_base"]["bits"] == [4]
        trained = model.evaluate_loss(batch_of(rows)).nll_sum
    save_adapter(tmp_path / "adapter", LORA, result.weights, directory, {})
    _, weights = load_adapter(tmp_path / "adapter", directory)
    with open_model(directory, quantise=4) as model:
        model.attach_lora(LORA, weights)
        assert model.evaluate_loss(batch_of(rows)).nll_sum == trained


def test_dpo_over_a_packed_base_takes_an_adapter_as_its_reference(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    """What the base is does not change when the reference's LoRA is attached to it."""
    directory, rows = tiny_directory("llama"), pairs(4)
    config = DpoConfig(TrainConfig(LORA, learning_rate=1e-3, micro_batch_size=2))
    with open_model(directory, quantise=4) as model:
        alone = model.describe()["quantised_base"]
        start = moved(initial_weights(LORA, model.linear_modules(), 0), 0.02)
        model.attach_lora(LORA, start)
        assert model.describe()["quantised_base"] == alone
        what = ReferenceModel.adapter(LORA, start)
        reference = compute_reference(model, what, rows, [], config, file=tmp_path / "r.jsonl")
    with open_model(directory, quantise=4) as model:
        result = train_preferences(
            model, rows, [], config, reference=reference, directory=tmp_path / "t", start=start
        )
    assert result.start is not None and result.start.policy_is_reference
    assert result.start.loss == pytest.approx(np.log(2), abs=1e-6)


def test_a_resume_over_another_base_is_refused(tiny_directory: Tiny, tmp_path: Path) -> None:
    directory, rows = tiny_directory("llama"), examples(2)
    config = TrainConfig(LORA, micro_batch_size=2)
    with open_model(directory, quantise=4) as model:
        train(model, rows, [], config, directory=tmp_path / "train")
    with open_model(directory, quantise=8) as model, pytest.raises(UserError):
        train(model, rows, [], config, directory=tmp_path / "train")


# Directories that mlx-lm quantised ------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(
    tiny_directory: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ModelDirectory]:
    """A tiny model through ``mlx_lm.convert -q``, prepared."""
    from mlx_lm import convert

    root = tmp_path_factory.mktemp("packed")
    made: dict[str, ModelDirectory] = {}

    def make(arch: str) -> ModelDirectory:
        if arch not in made:
            out = root / arch
            convert(
                str(tiny_directory(arch).path), str(out), quantize=True, q_bits=4, q_group_size=32
            )
            made[arch] = prepare(str(out), cache=root / "cache")
        return made[arch]

    return make


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma3"])
def test_a_directory_quantised_by_mlx_lm_trains_with_its_packed_head(
    tiny_directory: Tiny, converted: Callable[[str], ModelDirectory], arch: str
) -> None:
    directory, batch = converted(arch), batch_of(examples(4))
    with open_model(directory) as packed, open_model(tiny_directory(arch)) as twin:
        assert packed._decoder.head.quantised
        assert packed.describe()["quantised_base"]["head"] is True
        theirs = dict(packed._decoder.network.named_modules())
        for path, module in twin._decoder.network.named_modules():
            if isinstance(theirs.get(path), nn.QuantizedLinear | nn.QuantizedEmbedding):
                module.weight = unpacked(theirs[path])
        prompts = [Prompt("a", (5, 6, 7, 8))]
        texts = [m.generate(prompts, max_tokens=6, stop_ids=())[0].ids for m in (packed, twin)]
        assert texts[0] == texts[1]
        expected, wanted = gradients(with_lora(twin), batch)
        loss, found = gradients(with_lora(packed), batch)
        assert loss == pytest.approx(expected, rel=TOLERANCE)
        assert norm_of({n: found[n] - wanted[n] for n in wanted}) < GRADIENT * norm_of(wanted)


def test_other_engines_refuse_it_in_one_line(
    converted: Callable[[str], ModelDirectory], tmp_path: Path
) -> None:
    directory = converted("llama")
    pytest.importorskip("torch")
    with pytest.raises(CapabilityError, match="use --backend mlx") as caught:
        open_backend("torch", directory)
    assert "\n" not in str(caught.value)
    with pytest.raises(CapabilityError, match="GGUF export"):
        export_gguf(directory, tmp_path / "x.gguf", dtype="f16")
    assert verify(directory) == QUANTISED
    with pytest.raises(UserError, match="quantised already"):
        open_model(directory, quantise=4)


def test_what_cannot_be_quantised_is_said(tiny_directory: Tiny) -> None:
    directory = tiny_directory("llama")
    with pytest.raises(UserError, match="choose 4 or 8"):
        open_model(directory, quantise=3)
    with pytest.raises(CapabilityError, match="torch engine cannot train over a quantised base"):
        open_backend("torch", directory, quantise=4)
    odd = tiny_directory("llama", hidden_size=80, intermediate_size=144, head_dim=8,
                         num_attention_heads=10)  # fmt: skip
    with pytest.raises(UserError, match="no layer of this model can be quantised"):
        open_model(odd, quantise=4)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"quantization_config": {"quant_method": "gptq"}}, "format that no engine here"),
     ({"quantization": "int4"}, "format that no engine here")],
)  # fmt: skip
def test_other_quantised_formats_are_refused(
    tiny_directory: Tiny, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_directory("llama").path, copy)
    whole = json.loads((copy / "config.json").read_text()) | config
    (copy / "config.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=words):
        prepare(str(copy), cache=tmp_path / "cache")


def test_packed_weights_of_another_model_are_refused(
    converted: Callable[[str], ModelDirectory], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(converted("llama").path, copy)
    whole = json.loads((copy / "config.json").read_text()) | {"vocab_size": 500}
    (copy / "config.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match="do not belong together"):
        prepare(str(copy), cache=tmp_path / "cache")


def test_the_estimate_knows_the_bits(
    tiny_directory: Tiny, converted: Callable[[str], ModelDirectory]
) -> None:
    config = TrainConfig(LORA)
    plain = model_size(tiny_directory("llama"))
    with open_model(tiny_directory("llama"), quantise=4) as model:
        held = model.describe()["quantised_base"]["weight_bytes"]
    estimate = estimate_training(plain, config, base_bits=4)
    # groups of 32 where 64 does not divide: at most a sixth more scales than estimated
    assert estimate.weights == pytest.approx(held, rel=0.1)
    assert estimate.weights < 0.7 * estimate_training(plain, config).weights
    packed = model_size(converted("llama"))
    assert packed.linear_modules == plain.linear_modules
    with open_model(converted("llama")) as model:
        held = model.describe()["quantised_base"]["weight_bytes"]
    assert estimate_training(packed, config).weights == held
