"""Arc 1's training phase: records to examples, the shared loop, the adapter on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcs.arc1.config import Arc1Config
from arcs.arc1.metrics import TrainingSummary
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from arcs.training_data import Record
from backends import default_dtype, free_memory, memory_model, open_backend
from backends.batching import steps_per_epoch
from backends.lora import load_adapter, save_adapter
from backends.memory import estimate_training, model_size, require_fits
from backends.training import StepRecord, TrainingExample, train
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError

ADAPTER = "adapter"
SUMMARY = "training.json"


def train_or_take(
    config: Arc1Config,
    run: RunDirectory,
    directory: ModelDirectory,
    backend: str,
    encoder: ChatEncoder,
    records: Sequence[Record],
    reporter: Reporter,
    counts: dict[str, float],
) -> tuple[Path, TrainingSummary | None]:
    """Return the adapter's directory and how it was trained (None for a user's own adapter).

    Raises UserError where a given adapter belongs to another model.
    """
    if config.adapter is not None:
        load_adapter(config.adapter, directory)  # raises where it does not fit
        return config.adapter, None
    adapter = run.path / ADAPTER
    if not (run.path / SUMMARY).exists():
        examples, held_out = make_examples(config, encoder, records)
        summary = _train(config, run, directory, backend, examples, held_out, reporter, counts)
        run.write_json(SUMMARY, summary.model_dump(mode="json"))
    return adapter, TrainingSummary.model_validate(run.read_json(SUMMARY))


def make_examples(
    config: Arc1Config, encoder: ChatEncoder, records: Sequence[Record]
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Encode (train, held_out) examples, prompt and response jointly and once."""
    chosen = [record for record in records if record.split == "train"]
    if config.train_limit is not None:
        # every k-th, so that a small share still holds all kinds and dispositions
        count = min(config.train_limit, len(chosen))
        chosen = [chosen[i * len(chosen) // count] for i in range(count)]
    if not chosen:
        raise UserError('--data: no record has "split": "train"')
    kept_out = [record for record in records if record.split == "held_out"]
    return [_encode(encoder, r) for r in chosen], [_encode(encoder, r) for r in kept_out]


def _encode(encoder: ChatEncoder, record: Record) -> TrainingExample:
    encoded = encoder.encode_example(record.prompt, record.response, item=record.id)
    return TrainingExample(record.id, encoded.ids, encoded.response_mask)


def _train(
    config: Arc1Config,
    run: RunDirectory,
    directory: ModelDirectory,
    backend: str,
    examples: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    reporter: Reporter,
    counts: dict[str, float],
) -> TrainingSummary:
    settings = config.training()
    dtype = default_dtype(backend) if config.dtype == "auto" else config.dtype
    longest = min(config.max_length, max(len(example.ids) for example in examples))
    estimate = estimate_training(
        model_size(directory),
        settings,
        dtype=dtype,
        longest=longest,
        base_bits=config.base_bits,
        engine=memory_model(backend),
    )
    # two checkpoints, one being written, and the adapter
    require_free(run.path, 3 * (estimate.lora + estimate.optimizer) + estimate.lora, "training")
    require_fits(estimate, free_memory(backend))
    with open_backend(backend, directory, dtype=dtype, quantise=config.base_bits) as model:
        run.extend_manifest(engine_training=model.describe())
        per_step = settings.micro_batch_size * settings.accumulation
        steps = settings.epochs * steps_per_epoch(len(examples), per_step)
        with reporter.bar(f"train ({backend})", steps, "steps") as bar:
            bar.advance(0, "held-out loss before training" if held_out else "")

            def on_step(record: StepRecord) -> None:
                counts["tokens"] = counts.get("tokens", 0) + record.tokens
                bar.advance(1, f"loss {record.loss:.4f}")

            result = train(
                model, examples, held_out, settings, directory=run.path / "train", on_step=on_step
            )
        save_adapter(run.path / ADAPTER, config.lora(), result.weights, directory, {})
        return TrainingSummary.of(result)
