"""Peak memory in processes of their own: its estimate, what it must not grow with, its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")
if sys.platform != "linux":
    pytest.skip("reads /proc and limits memory", allow_module_level=True)

from backends import memory_model, open_backend
from backends.interface import LoraConfig
from backends.memory import MemoryEstimate, estimate_training, model_size
from backends.mlx.loss import CHUNK_BYTES
from backends.out_of_memory import memory_errors
from backends.torch.train import HEAD_CHUNK_ELEMENTS
from backends.training import TrainConfig
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.memory_probe import Job, directory_of, measure, start

Tiny = Callable[..., ModelDirectory]
ENGINES = ("torch", "mlx")
MIB = 1 << 20
WITHIN = 0.25


def estimate_of(job: Job) -> MemoryEstimate:
    lora = LoraConfig(job.rank, 2.0 * job.rank, targets=job.targets)  # type: ignore[arg-type]
    config = TrainConfig(
        lora,
        micro_batch_size=job.rows,
        max_length=job.length,
        gradient_checkpointing=job.checkpointing,
    )
    size = model_size(directory_of(job.model))
    return estimate_training(size, config, engine=memory_model(job.engine))


@pytest.fixture(scope="module")
def wide(tiny_directory: Tiny) -> str:
    """Few layers, wide, so that activations weigh as much as the engine itself."""
    return str(
        tiny_directory(
            "llama", hidden_size=256, intermediate_size=1024, num_attention_heads=8,
            num_key_value_heads=4, head_dim=32, num_hidden_layers=8, max_position_embeddings=2048,
        ).path
    )  # fmt: skip


# The estimate -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_estimate_is_near_the_peak_and_checkpointing_lowers_it(
    wide: str, engine: str, checkpointing: bool
) -> None:
    job = Job(engine, wide, rows=4, length=512, checkpointing=checkpointing, targets="all", steps=1)
    estimate, found = estimate_of(job), measure(job)
    assert estimate.total == pytest.approx(found["peak"], rel=WITHIN)
    if checkpointing:
        kept = measure(replace(job, checkpointing=False))
        assert (
            found["peak"]
            < kept["peak"] - 0.5 * estimate_of(replace(job, checkpointing=False)).activations
        )
        # the same work recomputed, operation by operation
        assert found["result"] == kept["result"]
        assert found["gradient_norm"] == pytest.approx(kept["gradient_norm"], rel=1e-6)


SETTINGS = (
    {"rows": 4, "length": 256},
    {"rows": 4, "length": 256, "checkpointing": True},
    {"rows": 4, "length": 256, "targets": "all"},
    {"rows": 2, "length": 512},
    {"rows": 1, "length": 16},
    # two steps: the moments of AdamW, which come with the first, weigh here
    {"rows": 4, "length": 512, "checkpointing": True, "targets": "all", "rank": 64, "steps": 2},
)


@pytest.mark.slow  # 10 seconds and more each on one core: a real model with real activations
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_estimate_is_near_the_peak_of_a_real_model(engine: str, settings: dict) -> None:
    job = Job(engine, "SmolLM2-135M-Instruct", **{"steps": 1, **settings})
    assert estimate_of(job).total == pytest.approx(measure(job)["peak"], rel=WITHIN)


def test_the_estimates_chunk_is_the_engines() -> None:
    assert memory_model("torch").head_elements == HEAD_CHUNK_ELEMENTS
    assert memory_model("mlx").head_elements == CHUNK_BYTES // 4


# Vocabulary x sequence ----------------------------------------------------------------------

VOCAB, ROWS, SHORT = 131_072, 4, 48


@pytest.fixture(scope="module")
def large_vocabulary(tiny_directory: Tiny) -> str:
    """One narrow head: attention's scores grow with the square of the sequence on MLX's CPU."""
    head = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16}
    return str(tiny_directory("llama", vocab=VOCAB, num_hidden_layers=2, **head).path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_peak_memory_does_not_grow_with_vocabulary_times_sequence(
    large_vocabulary: str, engine: str
) -> None:
    job = Job(engine, large_vocabulary, work="growth", rows=ROWS, length=SHORT)
    logits = 4 * VOCAB * ROWS * 3 * SHORT  # of the ids that the longer batch has more
    found = measure(job)
    assert set(found) == {"logprobs", "loss", "train"}
    # In training MLX's queue may hold two chunks more of the longer batch (no more of a longer
    # one), and so may the heap that torch allocates from.
    assert found.pop("train") < 0.15 * logits + 2 * CHUNK_BYTES < 0.4 * logits
    assert max(found.values()) < 0.15 * logits
    # negative twin: with all logits at once each of the three grows by them, log-probabilities
    # less, since they are read in batches
    whole = measure(replace(job, whole_head=True))
    assert min(whole.values()) > 0.6 * logits


# When it runs out ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_running_out_is_one_line_that_says_what_to_change(wide: str, engine: str) -> None:
    done = start(Job(engine, wide, rows=8, length=1024, steps=1, data_limit=300 * MIB))
    assert done.returncode == 2, done.stderr[-1500:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and done.stdout == "" and "Traceback" not in done.stderr
    # torch fails and says so; MLX on a CPU would die of it, and is asked before
    said = "ran" if engine == "torch" else "would run"
    for words in (f"the {engine} engine {said} out of memory while training", "micro_batch_size",
                  "gradient_checkpointing", "max_length"):  # fmt: skip
        assert words in errors[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 8 GiB"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GiB, other: 1 GiB)"),
        RuntimeError(
            "[METAL] Command buffer execution failed: Insufficient Memory "
            "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
        ),
        RuntimeError(
            "[metal::malloc] Attempting to allocate 9000000000 bytes which is greater than the "
            "maximum allowed buffer size of 8000000000 bytes."
        ),
        RuntimeError("[malloc] Unable to allocate 9000000000 bytes."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 8 bytes. Error code 12"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: str(error)[:25],
)  # fmt: skip
def test_every_systems_words_for_it_are_known(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"the x engine ran out .* do this") as caught,
        memory_errors("x", "training", "do this"),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__  # no second traceback


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"), memory_errors("x", "y", "z"):
        raise RuntimeError("shapes do not match")


def test_torchs_own_error_is_known() -> None:
    import torch

    with pytest.raises(UserError), memory_errors("torch", "training", "advice"):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("engine", ["torch", "mlx"])
def test_weights_or_a_lora_that_do_not_fit_are_one_line(
    engine: str, tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"torch": "torch", "mlx": "mlx.core"}[engine])
    directory = tiny_directory("llama")

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("[malloc] Unable to allocate 123 bytes.")

    with open_backend(engine, directory) as model:
        monkeypatch.setattr(f"backends.{engine}.lora.attach", failing)
        with pytest.raises(UserError, match=r"while attaching the LoRA .*rank"):
            model.attach_lora(LoraConfig(rank=2, alpha=4), {})
    monkeypatch.setattr(f"backends.{engine}.model.open_model", failing)
    with pytest.raises(UserError, match=rf"while loading {directory.name} .*smaller model"):
        open_backend(engine, directory)
