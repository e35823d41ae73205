"""The memory estimate, against what autograd really keeps."""
# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import backends.memory as memory
from backends.batching import make_batch
from backends.interface import AdamWConfig, LoraConfig
from backends.lora import initial_weights
from backends.memory import (
    MemoryEstimate,
    available_memory,
    estimate_training,
    model_size,
    require_fits,
)
from backends.torch.model import open_model
from backends.training import TrainConfig
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import example

Tiny = Callable[..., ModelDirectory]
CONFIG = TrainConfig(lora=LoraConfig(8, 16.0, targets="all"), micro_batch_size=2, max_length=96)
GIB = 1 << 30


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sizes_equal_what_the_engine_opens(tiny_directory: Tiny, arch: str) -> None:
    directory = tiny_directory(arch)
    size = model_size(directory)
    with open_model(directory, device=DEVICE) as model:
        assert dict(size.linear_modules) == model.linear_modules()
        assert size.layers == model.config.num_hidden_layers
        assert size.hidden == model.config.hidden_size
        # Gemma 4 stores one scalar a layer that torch keeps as a buffer
        count = sum(p.numel() for p in model.model.parameters())
        assert count <= size.parameters <= count + size.layers


def kept_bytes(directory: ModelDirectory, config: TrainConfig, dtype: Any) -> int:
    """Bytes of distinct tensors, weights apart, that one micro-batch keeps for the backward pass.

    The loss drives the decoder's backward pass only when all of them are in place, so their
    sum is the peak. Checkpointed layers save theirs during that pass, one layer at a time.
    """
    rows = [example(1, config.max_length, seed=i) for i in range(config.micro_batch_size)]
    seen: dict[int, int] = {}
    with open_model(directory, dtype=dtype, device=DEVICE) as model:
        weights = initial_weights(config.lora, model.linear_modules(), 0)
        model.attach_lora(config.lora, weights)
        model.configure_optimizer(AdamWConfig())
        own = {p.untyped_storage().data_ptr() for p in model.model.parameters()}
        held = []

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
                held.append(tensor)  # alive, so that no address is used twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.accumulate(make_batch(rows, normaliser=1.0))
    return sum(seen.values())


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_estimate_covers_what_is_kept_and_is_not_absurd(
    tiny_directory: Tiny, arch: str, dtype: Any, targets: Any
) -> None:
    directory = tiny_directory(arch)
    config = replace(CONFIG, lora=LoraConfig(8, 16.0, targets=targets))
    estimate = estimate_training(model_size(directory), config, dtype=dtype)
    kept = kept_bytes(directory, config, dtype)
    ratio = (estimate.activations + estimate.head) / kept
    # above 1 always; some 2 where tiny widths let the head's working space weigh most
    assert 1.0 <= ratio < 2.2, ratio


def test_estimate_follows_the_settings(tiny_directory: Tiny) -> None:
    size = model_size(tiny_directory("llama"))

    def total(dtype: Any = "float32", longest: int | None = None, **change: Any) -> MemoryEstimate:
        return estimate_training(size, replace(CONFIG, **change), dtype=dtype, longest=longest)

    assert total(micro_batch_size=4).activations == 2 * total().activations
    assert total(longest=48).activations == total().activations // 2
    assert total(longest=500).activations == total().activations
    assert total(gradient_checkpointing=True).activations < total().activations / 2
    assert total("bfloat16").weights == total().weights // 2
    lora = sum(w.size for w in initial_weights(CONFIG.lora, size.linear_modules, 0).values())
    assert total().lora == 4 * lora
    assert total().optimizer == 2 * total().gradients == 8 * lora


def test_what_does_not_fit_names_the_setting_to_change(tiny_directory: Tiny) -> None:
    size = model_size(tiny_directory("llama"))
    for change, dtype, share, advice in (
        ({}, "float32", 0.9, "turn on gradient_checkpointing"),
        ({"gradient_checkpointing": True}, "float32", 0.9, "lower micro_batch_size"),
        ({"gradient_checkpointing": True, "micro_batch_size": 1}, "float32", 0.9, "max_length"),
        ({}, "float32", 0.0, "use dtype bfloat16"),
        ({}, "bfloat16", 0.0, "use a smaller model"),
    ):
        estimate = estimate_training(size, replace(CONFIG, **change), dtype=dtype)  # type: ignore[arg-type]
        estimate = replace(estimate, activations=10 * GIB)
        require_fits(estimate, estimate.total)
        with pytest.raises(UserError, match=advice) as caught:
            require_fits(estimate, int(share * estimate.total))
        assert "\n" not in str(caught.value)
        assert "10.0 GiB" in str(caught.value)


def test_loaded_weights_are_not_counted_twice(tiny_directory: Tiny) -> None:
    estimate = estimate_training(model_size(tiny_directory("llama")), CONFIG)
    require_fits(estimate, estimate.training, loaded=True)
    with pytest.raises(UserError):
        require_fits(estimate, estimate.training)


def test_the_file_cache_of_a_container_counts_as_free(tmp_path: Path) -> None:
    """Reading weights fills it, and the system gives it up when memory is asked for."""
    new, old = tmp_path / "new", tmp_path / "old"
    (old / "memory").mkdir(parents=True)
    new.mkdir()
    (new / "memory.max").write_text("1000\n")
    (new / "memory.current").write_text("900\n")
    (new / "memory.stat").write_text("anon 300\nactive_file 200\ninactive_file 350\n")
    assert memory._cgroup_free(new) == [650]
    (old / "memory" / "memory.limit_in_bytes").write_text("1000\n")
    (old / "memory" / "memory.usage_in_bytes").write_text("900\n")
    stat = "active_file 1\ninactive_file 1\ntotal_active_file 100\ntotal_inactive_file 50\n"
    (old / "memory" / "memory.stat").write_text(stat)
    assert memory._cgroup_free(old) == [250]
    (new / "memory.max").write_text("max\n")
    assert memory._cgroup_free(new) == []


def test_advice_for_pairs_names_their_own_settings(tiny_directory: Tiny) -> None:
    size = model_size(tiny_directory("llama"))

    def advice(micro_batch_size: int) -> str:
        config = replace(CONFIG, micro_batch_size=micro_batch_size, gradient_checkpointing=True)
        found = estimate_training(size, config, pairs=True)
        rows = replace(config, micro_batch_size=2 * micro_batch_size)
        assert found.training == estimate_training(size, rows).training
        with pytest.raises(UserError) as caught:
            require_fits(found, found.total - 1)
        return str(caught.value)

    assert "2 x 2 x 96 tokens" in advice(2)
    assert "lower dpo_micro_batch_size and raise dpo_accumulation" in advice(2)
    assert advice(1).endswith("lower dpo_max_length")


def test_available_memory_is_plausible_and_heeds_the_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psutil

    assert 0 < available_memory() <= psutil.virtual_memory().total
    monkeypatch.setattr(memory, "_cgroup_free", lambda: [12345])
    assert available_memory() == 12345
