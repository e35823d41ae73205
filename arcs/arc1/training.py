"""Arc 1's training phases: rows to ids, the shared loop, the adapters on disk.

SFT alone leaves ``adapter``; ``sft+dpo`` leaves ``adapter-sft`` and then ``adapter``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from arcs import trained_on
from arcs.arc1.config import Arc1Config
from arcs.arc1.metrics import PreferenceSummary, TrainingSummary
from arcs.arc1.think_mask import without_thoughts
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from arcs.training_data import Preference, Record, built_in_paths, load, paired_placebo
from backends import default_dtype, free_memory, memory_model, open_backend
from backends.batching import steps_per_epoch
from backends.interface import Float32, LanguageModel, LoraConfig
from backends.lora import load_adapter, save_adapter
from backends.memory import estimate_training, model_size, require_fits
from backends.preferences import PreferencePair
from backends.reference import (
    Reference,
    ReferenceModel,
    compute_reference,
    cut_both,
    is_complete,
    load_reference,
)
from backends.training import (
    StepRecord,
    TrainConfig,
    TrainingExample,
    TrainingStopped,
    TrainResult,
    train,
    train_preferences,
)
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError

ADAPTER, SFT_ADAPTER, LAST_GOOD_ADAPTER = "adapter", "adapter-sft", "adapter-last-good"
SUMMARY, DPO_SUMMARY = "training.json", "training-dpo.json"
TRAIN, TRAIN_DPO = "train", "train-dpo"
REFERENCE = "reference.jsonl"
Counts = dict[str, float]
T = TypeVar("T")
R = TypeVar("R", Record, Preference)


@dataclass(frozen=True)
class Trained:
    """The adapter to evaluate and how it was made."""

    adapter: Path
    sft: TrainingSummary | None
    dpo: PreferenceSummary | None
    sft_adapter: Path | None = None
    """What SFT made, where DPO went on from it."""


@dataclass(frozen=True)
class Trainer:
    """What all trainings of a run share."""

    config: Arc1Config
    run: RunDirectory
    directory: ModelDirectory
    backend: str
    encoder: ChatEncoder
    reporter: Reporter
    shared: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Benchmark -> evaluated problems that are trained on, as --allow-overlap accepts."""

    @property
    def dtype(self) -> Any:
        """Of the weights while training."""
        asked = self.config.dtype
        return default_dtype(self.backend) if asked == "auto" else asked

    def open(self, *, to_train: bool = True) -> LanguageModel:
        """The base on the training engine, its weights quantised if that was asked for.

        ``to_train``: in as many processes as were asked for, else in this one.
        """
        return open_backend(
            self.backend,
            self.directory,
            dtype=self.dtype,
            quantise=self.config.base_bits,
            processes=self.config.processes if to_train else 1,
        )


def train_or_take(
    trainer: Trainer, records: Sequence[Record], pairs: Sequence[Preference]
) -> Trained:
    """Do the trainings that are not done yet, or take the user's own adapter.

    Raises UserError where a given adapter belongs to another model.
    """
    config, run = trainer.config, trainer.run
    if config.adapter is not None:
        load_adapter(config.adapter, trainer.directory)  # raises where it does not fit
        return Trained(config.adapter, None, None)
    sft = dpo = encoded = None
    sft_prompts = [one.prompt for one in trained_records(config, records)]
    dpo_prompts = [one.prompt for one in trained_pairs(config, pairs)]
    if "dpo" in config.trains and not (run.path / DPO_SUMMARY).exists():
        # what DPO cannot work with is found before SFT has taken its time
        encoded = make_pairs(config, trainer.encoder, pairs)
        cut_both(*encoded, config.dpo())
        _require_room_for_pairs(trainer, *encoded)
    if "sft" in config.trains:
        with run.timed("train") as counts:
            sft = _sft(trainer, records, sft_prompts, counts)
    if "dpo" in config.trains:
        with run.timed("train dpo") as counts:
            if encoded is not None:
                _dpo(trainer, *encoded, [*sft_prompts, *dpo_prompts], counts)
            dpo = PreferenceSummary.model_validate(run.read_json(DPO_SUMMARY))
    both = run.path / SFT_ADAPTER if sft is not None and dpo is not None else None
    return Trained(run.path / ADAPTER, sft, dpo, both)


def records_of(config: Arc1Config) -> tuple[Record, ...]:
    """What SFT may train on. Raises UserError where a file is wrong or a partner is missing."""
    if "sft" not in config.trains:
        return ()
    found = load(config.data or built_in_paths())
    return paired_placebo(load(config.paired_with), found) if config.paired_with else found


def trained_records(config: Arc1Config, records: Sequence[Record]) -> Sequence[Record]:
    """Records that SFT trains on; none where there is no SFT."""
    return _spread([one for one in records if one.split == "train"], config.train_limit)


def trained_pairs(config: Arc1Config, pairs: Sequence[Preference]) -> Sequence[Preference]:
    """Pairs that DPO trains on; none where there is no DPO."""
    return _spread([one for one in pairs if one.split == "train"], config.pairs_limit)


def make_examples(
    config: Arc1Config, encoder: ChatEncoder, records: Sequence[Record]
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Encode (train, held_out) examples, prompt and response jointly and once."""
    chosen = trained_records(config, records)
    if not chosen:
        raise UserError('--data: no record has "split": "train"')
    kept_out = _held_out(config, records)

    def encode(record: Record) -> TrainingExample:
        return _encode(encoder, record.id, record.prompt, record.response)

    made = [encode(r) for r in chosen], [encode(r) for r in kept_out]
    return without_thoughts(encoder, *made) if config.mask_think else made


def make_pairs(
    config: Arc1Config, encoder: ChatEncoder, pairs: Sequence[Preference]
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Encode (train, held_out) pairs, each side with its prompt and end of turn, once."""
    chosen = trained_pairs(config, pairs)
    if not chosen:
        raise UserError('--pairs: no pair has "split": "train"')
    kept_out = _held_out(config, pairs)

    def encode(pair: Preference) -> PreferencePair:
        good = _encode(encoder, pair.id, pair.prompt, pair.chosen)
        return PreferencePair(pair.id, good, _encode(encoder, pair.id, pair.prompt, pair.rejected))

    return [encode(p) for p in chosen], [encode(p) for p in kept_out]


def _held_out(config: Arc1Config, rows: Sequence[R]) -> Sequence[R]:
    return _spread([one for one in rows if one.split == "held_out"], config.held_out_limit)


def _spread(rows: Sequence[T], limit: int | None) -> Sequence[T]:
    """Every k-th of ``rows``, so that a small share still holds all kinds and dispositions."""
    count = len(rows) if limit is None else min(limit, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _encode(encoder: ChatEncoder, item: str, prompt: str, response: str) -> TrainingExample:
    encoded = encoder.encode_example(prompt, response, item=item)
    return TrainingExample(item, encoded.ids, encoded.response_mask)


def _sft(
    trainer: Trainer, records: Sequence[Record], prompts: Sequence[str], counts: Counts
) -> TrainingSummary:
    config, run = trainer.config, trainer.run
    adapter = run.path / (SFT_ADAPTER if "dpo" in config.trains else ADAPTER)
    if not (run.path / SUMMARY).exists():
        examples, held_out = make_examples(config, trainer.encoder, records)
        settings = config.training()
        longest = max(len(example.ids) for example in (*examples, *held_out))
        _require_room(trainer, settings, longest)
        _say_batch(trainer, settings, len(examples), "records")
        with (
            trainer.open() as model,
            _bar(trainer, "train", settings, len(examples), bool(held_out), counts) as on_step,
            _last_good(trainer, prompts),
        ):
            run.extend_manifest(engine_training=model.describe())
            result = train(
                model, examples, held_out, settings, directory=run.path / TRAIN, on_step=on_step
            )
        _finish(trainer, adapter, prompts, result, SUMMARY, TrainingSummary.of(result))
    return TrainingSummary.model_validate(run.read_json(SUMMARY))


def _dpo(
    trainer: Trainer,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    prompts: Sequence[str],
    counts: Counts,
) -> None:
    config, run, settings = trainer.config, trainer.run, trainer.config.dpo()
    start = None
    if "sft" in config.trains:
        start = load_adapter(run.path / SFT_ADAPTER, trainer.directory)[1]
    _require_room_for_pairs(trainer, pairs, held_out)
    _say_batch(trainer, settings.train, len(pairs), "pairs")
    reference = _reference(trainer, pairs, held_out)
    run.extend_manifest(reference={"given": config.dpo_reference, **reference.describe()})
    with (
        trainer.open() as model,
        _bar(trainer, "train dpo", settings.train, len(pairs), bool(held_out), counts) as on_step,
        _last_good(trainer, prompts),
    ):
        run.extend_manifest(engine_training=model.describe())
        result = train_preferences(
            model,
            pairs,
            held_out,
            settings,
            reference=reference,
            directory=run.path / TRAIN_DPO,
            start=start,
            on_step=on_step,
        )
    summary = PreferenceSummary.of(result, settings.beta)
    _finish(trainer, run.path / ADAPTER, prompts, result, DPO_SUMMARY, summary)


def reference_is_stored(run: RunDirectory) -> bool:
    """Whether the reference's log-probabilities are all there: its adapter is needed no more."""
    return is_complete(run.path / TRAIN_DPO / REFERENCE)


def _reference(
    trainer: Trainer, pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair]
) -> Reference:
    """The reference's log-probabilities: those that are stored, or computed now and once."""
    file = trainer.run.path / TRAIN_DPO / REFERENCE
    if is_complete(file):
        return load_reference(file)
    adapter = _reference_adapter(trainer)
    with (
        trainer.open(to_train=False) as model,
        trainer.reporter.bar("reference", len(pairs) + len(held_out), "pairs") as bar,
    ):
        what = ReferenceModel.base()
        if adapter is not None:
            what = ReferenceModel.adapter(*adapter)
            model.attach_lora(*adapter)
        return compute_reference(
            model, what, pairs, held_out, trainer.config.dpo(), file=file, on_pairs=bar.advance
        )


def _reference_adapter(trainer: Trainer) -> tuple[LoraConfig, dict[str, Float32]] | None:
    named = trainer.config.dpo_reference
    if named == "base":
        return None
    path = trainer.run.path / SFT_ADAPTER if named == "sft" else Path(named)
    return load_adapter(path, trainer.directory)


def _finish(
    trainer: Trainer,
    adapter: Path,
    prompts: Sequence[str],
    result: TrainResult,
    name: str,
    summary: TrainingSummary | PreferenceSummary,
) -> None:
    """Write the adapter, then the summary, which says that this training is done."""
    # of an earlier call that stopped (on a GPU a repeat may not)
    shutil.rmtree(trainer.run.path / LAST_GOOD_ADAPTER, ignore_errors=True)
    extra = {trained_on.KEY: trained_on.describe(prompts, trainer.shared)}
    save_adapter(adapter, trainer.config.lora(), result.weights, trainer.directory, extra)
    trainer.run.write_json(name, summary.model_dump(mode="json"))


def _require_room_for_pairs(
    trainer: Trainer, pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair]
) -> None:
    longest = max(pair.length for pair in (*pairs, *held_out))
    _require_room(trainer, trainer.config.dpo().train, longest, pairs=True)


def _require_room(
    trainer: Trainer, settings: TrainConfig, longest: int, *, pairs: bool = False
) -> None:
    """Raise UserError where disk or memory will not do for a micro-batch of rows or of pairs."""
    estimate = estimate_training(
        model_size(trainer.directory),
        settings,
        dtype=trainer.dtype,
        longest=min(settings.max_length, longest),
        base_bits=trainer.config.base_bits,
        pairs=pairs,
        engine=memory_model(trainer.backend),
    )
    # two checkpoints, one being written, and the adapter
    needs = 3 * (estimate.lora + estimate.optimizer) + estimate.lora
    require_free(trainer.run.path, needs, "training")
    processes = trainer.config.processes
    try:
        require_fits(estimate, free_memory(trainer.backend, processes))
    except UserError as error:
        if processes == 1:
            raise
        raise UserError(f"in each of {processes} processes {error}, or lower --processes") from None


def _say_batch(trainer: Trainer, settings: TrainConfig, count: int, noun: str) -> None:
    batch = settings.micro_batch_size * settings.accumulation
    if batch > count:
        trainer.reporter.say(
            f"a step would take {batch} {noun} and there are {count}: one step an epoch, with "
            "all of them"
        )


@contextmanager
def _bar(
    trainer: Trainer,
    name: str,
    settings: TrainConfig,
    items: int,
    held_out: bool,
    counts: Counts,
) -> Iterator[Callable[[StepRecord], None]]:
    """Show a training's progress and count its tokens."""
    per_epoch = steps_per_epoch(items, settings.micro_batch_size * settings.accumulation)
    steps = settings.epochs * per_epoch
    with trainer.reporter.bar(f"{name} ({trainer.backend})", steps, "steps") as bar:
        bar.advance(0, "held-out loss before training" if held_out else "")

        def on_step(record: StepRecord) -> None:
            counts["tokens"] = counts.get("tokens", 0) + record.tokens
            bar.advance(1, f"loss {record.loss:.4f}")

        yield on_step


@contextmanager
def _last_good(trainer: Trainer, prompts: Sequence[str]) -> Iterator[None]:
    """When the loss stops being finite, leave the last good weights as an adapter as well."""
    try:
        yield
    except TrainingStopped as stop:
        if stop.last_good is None:
            raise
        path = trainer.run.path / LAST_GOOD_ADAPTER
        save_adapter(
            path,
            trainer.config.lora(),
            stop.last_good.weights,
            trainer.directory,
            {
                "step": stop.last_good.step,
                "stopped": str(stop),
                trained_on.KEY: trained_on.describe(prompts, trainer.shared),
            },
        )
        raise UserError(f"{stop} (as a PEFT adapter: {path})") from None
