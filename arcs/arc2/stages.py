"""What is asked of an engine, kept as it finishes: answers, contrasts, head outputs, ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc2.attribution import HeadReading
from arcs.arc2.selection import Point
from arcs.progress import Reporter
from arcs.runs import JsonLines, RunDirectory
from backends.interface import Completion, Float64, Head, LanguageModel, Prompt, Sampling
from backends.sequences import TokenSequence
from evals.meter import EncodedPair, read_pairs
from models.errors import UserError
from models.files import write_atomically

ANSWERS_AT_A_TIME = 32
PAIRS_AT_A_TIME = 16
HEADS_AT_A_TIME = 16
"""Batches decide rounding, so what is done together never changes, however often a run is
stopped; a chunk that a kill left unfinished is done again whole."""


def answer(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    store: JsonLines,
    label: str,
    reporter: Reporter,
    *,
    n_predict: int,
    stop_ids: Sequence[int],
    sampling: Sampling,
) -> int:
    """Answer the prompts that ``store`` lacks; returns the ids generated now."""
    done = {record["item_id"] for record in store.records}
    produced = 0
    with reporter.bar(label, len(prompts), "answers", done=len(done)) as bar:
        for start in range(0, len(prompts), ANSWERS_AT_A_TIME):
            chunk = prompts[start : start + ANSWERS_AT_A_TIME]
            missing = {one.item_id for one in chunk} - done
            if not missing:
                continue
            for made in model.generate(
                chunk, max_tokens=n_predict, stop_ids=stop_ids, sampling=sampling
            ):
                produced += len(made.ids)
                if made.item_id in missing:
                    store.append(
                        {
                            "item_id": made.item_id,
                            "ids": list(made.ids),
                            "finish_reason": made.finish_reason,
                            "near_ties": made.near_ties,
                        }
                    )
            bar.advance(len(missing))
    return produced


def completions(store: JsonLines, prompts: Sequence[Prompt]) -> list[Completion]:
    """The stored answers in the order of the prompts.

    Raises UserError where one is missing, there twice, or of another prompt.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for record in store.records:
        if record["item_id"] in found:
            raise UserError(f"{store.path}: {record['item_id']} is there twice; start a new run")
        found[record["item_id"]] = record
    strange = next((one for one in found if one not in {p.item_id for p in prompts}), None)
    if strange is not None or len(found) < len(prompts):
        what = f"{strange} was not asked" if strange else "answers are missing"
        raise UserError(f"{store.path}: {what}; start a new run with --out")
    return [
        Completion(
            item_id=prompt.item_id,
            prompt_ids=prompt.ids,
            ids=tuple(found[prompt.item_id]["ids"]),
            finish_reason=found[prompt.item_id]["finish_reason"],
            seconds=0.0,
            near_ties=found[prompt.item_id]["near_ties"],
        )
        for prompt in prompts
    ]


def read_meter(
    model: LanguageModel,
    pairs: Sequence[EncodedPair],
    store: JsonLines,
    label: str,
    reporter: Reporter,
) -> None:
    """Read the pairs that ``store`` lacks."""
    done = {record["item_id"] for record in store.records}
    with reporter.bar(label, len(pairs), "items", done=len(done)) as bar:
        for start in range(0, len(pairs), PAIRS_AT_A_TIME):
            chunk = pairs[start : start + PAIRS_AT_A_TIME]
            missing = {one.item.id for one in chunk} - done
            if not missing:
                continue
            for reading in read_pairs(model, chunk):
                if reading.item_id in missing:
                    store.append(
                        {
                            "item_id": reading.item_id,
                            "contrast": reading.contrast,
                            "likelihood": (reading.positive + reading.negative) / 2,
                        }
                    )
            bar.advance(len(missing))


def contrasts(store: JsonLines) -> dict[str, float]:
    """Item -> contrast, nats per token."""
    return {record["item_id"]: record["contrast"] for record in store.records}


def likelihoods(store: JsonLines) -> dict[str, float]:
    """Item -> mean log-probability of its two continuations, nats per token."""
    return {record["item_id"]: record["likelihood"] for record in store.records}


def at_point(model: LanguageModel, point: Point) -> Any:
    """The engine with the point's heads scaled while the context lasts."""
    return model.tempered(point.factors) if point.heads else nullcontext()


def response_of(one: Completion, stop_ids: Sequence[int]) -> TokenSequence | None:
    """Prompt and answer as they were generated, without the stop token; None: an empty answer.

    The stop token is left out of finished and cut answers alike, so that the last position means
    the same in both.
    """
    ids = one.ids[:-1] if one.ids and one.ids[-1] in stop_ids else one.ids
    return TokenSequence(one.item_id, one.prompt_ids, ids, "generated") if ids else None


def read_heads(
    model: LanguageModel,
    sequences: Sequence[TokenSequence],
    folder: Path,
    reporter: Reporter,
    *,
    last_n: int,
) -> None:
    """Read every head over each answer's last tokens; one file a chunk, written whole."""
    from safetensors.numpy import save

    folder.mkdir(exist_ok=True)
    with reporter.bar("heads", len(sequences), "answers") as bar:
        for start in range(0, len(sequences), HEADS_AT_A_TIME):
            chunk = sequences[start : start + HEADS_AT_A_TIME]
            path = folder / f"{start:06d}.safetensors"
            if not path.exists():
                found = model.head_outputs(
                    [one.ids for one in chunk],
                    [len(one.prompt_ids) for one in chunk],
                    last_n=last_n,
                )
                tensors = {"tokens": np.array(found.tokens, dtype=np.int32)}
                for layer, norms, means in zip(found.layers, found.norms, found.means, strict=True):
                    tensors[f"norms.{layer}"] = np.ascontiguousarray(norms)
                    tensors[f"means.{layer}"] = np.ascontiguousarray(means)
                write_atomically(path, save(tensors))
            bar.advance(len(chunk))


def head_reading(item_ids: Sequence[str], folder: Path, layers: Sequence[int]) -> HeadReading:
    """What :func:`read_heads` kept, for the heads of ``layers``; raises UserError if damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    parts = []
    for start in range(0, len(item_ids), HEADS_AT_A_TIME):
        path = folder / f"{start:06d}.safetensors"
        try:
            parts.append(load_file(path))
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"{path}: cannot be read ({error}); start a new run") from None
    norms = {layer: np.concatenate([part[f"norms.{layer}"] for part in parts]) for layer in layers}
    means = {layer: np.concatenate([part[f"means.{layer}"] for part in parts]) for layer in layers}
    heads = tuple(Head(layer, head) for layer in layers for head in range(norms[layer].shape[1]))
    if len(norms[layers[0]]) != len(item_ids):
        raise UserError(f"{folder}: holds other answers' heads; start a new run with --out")
    return HeadReading(
        item_ids=tuple(item_ids),
        heads=heads,
        norms=np.stack([norms[one.layer][:, one.head] for one in heads], axis=1),
        means=tuple(np.ascontiguousarray(means[one.layer][:, one.head]) for one in heads),
    )


def ablate_on_pairs(
    model: LanguageModel,
    heads: Sequence[Head],
    pairs: Sequence[EncodedPair],
    store: JsonLines,
    reporter: Reporter,
) -> None:
    """Contrasts of the pairs as they are (head None), and with each head at 0."""
    _ablate(
        model, heads, store, reporter, lambda: [one.contrast for one in read_pairs(model, pairs)]
    )


def ablate_on_answers(
    model: LanguageModel,
    heads: Sequence[Head],
    sequences: Sequence[TokenSequence],
    store: JsonLines,
    reporter: Reporter,
) -> None:
    """Mean log-probability (nats per token) of the answers as they are, and with each head at 0."""

    def read() -> list[float]:
        found = model.logprobs(
            [one.ids for one in sequences], [len(one.prompt_ids) for one in sequences]
        )
        return [float(np.asarray(values, dtype=np.float64).mean()) for values in found]

    _ablate(model, heads, store, reporter, read)


def _ablate(
    model: LanguageModel,
    heads: Sequence[Head],
    store: JsonLines,
    reporter: Reporter,
    read: Any,
) -> None:
    done = {head_of(record) for record in store.records}
    if None not in done:
        store.append({"head": None, "values": read()})
    with (
        model.reusing_below(),
        reporter.bar("ablations", len(heads), "heads", done=len(done - {None})) as bar,
    ):
        for head in heads:
            if head in done:
                continue
            with model.tempered({head: 0.0}):
                store.append({"head": list(head), "values": read()})
            bar.advance(1, f"L{head.layer}H{head.head}")


def head_of(record: Mapping[str, Any]) -> Head | None:
    """The head that a record of the ablations is of; None: of the unchanged model."""
    return None if record["head"] is None else Head(*record["head"])


def ablation_shifts(records: Sequence[Mapping[str, Any]], heads: Sequence[Head]) -> Float64:
    """[n, k] value with the head ablated minus value without, nats per token."""
    found = {head_of(record): record["values"] for record in records}
    base = np.array(found[None], dtype=np.float64)
    return np.stack([np.array(found[head]) - base for head in heads], axis=1)


def answers_file(point: Point, seed: int | None, what: str = "") -> str:
    """Of the answers at one point and seed; ``what``: of the tasks beside the labels' prompts."""
    parts = [what or "answers", point.name, *([] if seed is None else [f"seed{seed}"])]
    return ".".join(parts) + ".jsonl"


def answers_store(run: RunDirectory, point: Point, seed: int | None, what: str = "") -> JsonLines:
    """The records of :func:`answers_file`."""
    return run.json_lines(answers_file(point, seed, what))


def meter_file(point: Point) -> str:
    """Of the contrasts at one point."""
    return f"meter.{point.name}.jsonl"


def meter_store(run: RunDirectory, point: Point) -> JsonLines:
    """The records of :func:`meter_file`."""
    return run.json_lines(meter_file(point))
