"""Features of the stored ids, in safetensors, under one definition for both sets.

Each chunk's file appears whole; what is there is not read again. At the end one file a set stands
in the run, with everything that is needed to read the features again elsewhere: token ids, where
each response begins, the position that was read, finish reasons, and the definition.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3.questions import SETS, SetName
from arcs.arc3.responses import Response, chunks_of
from arcs.progress import Reporter
from arcs.runs import RunDirectory, canonical_json
from backends.interface import Float32, HiddenPoint, LanguageModel
from backends.sequences import Pooling, Position, points_of, pooled, position_of
from evals.probing.baselines import SCALARS, token_scalars
from models.errors import UserError
from models.files import write_atomically

LAST_K = 4
PARTS = "features.parts"
SCALARS_NAME = "token_scalars"
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Definition:
    """What a feature row is; equal for every row of an analysis."""

    position: str
    poolings: tuple[str, ...]
    last_k: int
    n_layers: int
    ids_source: str
    """``generated``: the ids that the model made; they were never tokenised again."""
    stop_ids: tuple[int, ...]
    """Ids that end an answer and are no content of it."""
    model_fingerprint: str
    engine: Mapping[str, Any]
    """As the engine describes itself: dtype or quantisation, device, versions."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        found: dict[str, Any] = json.loads(canonical_json(asdict(self)))
        return found


@dataclass(frozen=True)
class Features:
    """One set's rows."""

    item_ids: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]
    """By pooling [n, d] or, for all layers, [n, layers + 1, d]; ``token_scalars`` [n, k]."""
    missing: tuple[str, ...]
    """Items without the position: no row, not another position's."""
    definition: Mapping[str, Any]
    finish_reasons: tuple[str, ...]
    """Of ``item_ids``."""


def poolings_of(model: LanguageModel) -> tuple[Pooling, ...]:
    """What the engine can give, h_last first."""
    if not model.capabilities.hidden_states:
        return (Pooling.H_LAST,)
    return (Pooling.H_LAST, Pooling.MEAN_NORMED, Pooling.PAPER_MIXED, Pooling.ALL_LAYERS)


def path_of(run: Path, name: SetName) -> Path:
    """Where a set's features are."""
    return run / f"features-{name}.safetensors"


def complete(run: Path, sets: Sequence[SetName] = SETS) -> bool:
    """Whether the features of these sets are there."""
    return all(path_of(run, name).is_file() for name in sets)


def extract(
    model: LanguageModel,
    found: Sequence[Response],
    definition: Definition,
    run: RunDirectory,
    counts: dict[str, float],
    reporter: Reporter,
    *,
    adds: bool = False,
) -> None:
    """Read what is not there yet, of the sets that were asked.

    Raises UserError where no answer of a set has the position, unless the set only adds to another
    (``adds``): then its file has no rows.
    """
    parts = run.path / PARTS
    counts["tokens"] = counts["items"] = 0
    for name in SETS:
        side = [one for one in found if one.question.set == name]
        if not side or path_of(run.path, name).is_file():
            continue
        parts.mkdir(exist_ok=True)
        with reporter.bar(f"features, {name}", len(side), "items") as bar:
            made = []
            for number, chunk in enumerate(_response_chunks(side)):
                path = parts / f"{name}-{number:04d}.safetensors"
                if not path.is_file():
                    _save(path, *_read(model, chunk, definition))
                    counts["items"] += len(chunk)
                    counts["tokens"] += sum(len(one.sequence.ids) for one in chunk)
                made.append(path)
                bar.advance(len(chunk))
        _merge(made, path_of(run.path, name), definition, empty=adds)
    shutil.rmtree(parts, ignore_errors=True)


def load(run: Path) -> dict[SetName, Features]:
    """Both sets. Raises UserError where they are not of one definition, or a file is damaged."""
    found = {name: read(path_of(run, name)) for name in SETS}
    require_one_definition(found["train"].definition, found["fresh"].definition)
    return found


def require_one_definition(train: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    """Raise UserError for features that are not the same thing (PAPER.md 8.2 T2, T6, T7)."""
    for key in sorted(train.keys() | fresh.keys()):
        if train.get(key) != fresh.get(key):
            raise UserError(
                f"the features of the training and the fresh set differ in {key}: "
                f"{train.get(key)} and {fresh.get(key)}; extract both again in a new run"
            )


_FACTS = "facts"
"""The metadata's key: JSON of ids, finish reasons and the definition."""


def read(path: Path) -> Features:
    """One file. Raises UserError for a file that is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads((file.metadata() or {})[_FACTS])
        return Features(
            tuple(facts["item_ids"]), arrays, tuple(facts["missing"]), facts["definition"],
            tuple(facts["finish_reasons"]),
        )  # fmt: skip
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: features cannot be read ({error}); start a new run") from None


def _response_chunks(side: Sequence[Response]) -> list[list[Response]]:
    by_id = {one.question.item_id: one for one in side}
    return [
        [by_id[question.item_id] for question in chunk]
        for chunk in chunks_of([one.question for one in side])
    ]


def _read(
    model: LanguageModel, chunk: Sequence[Response], definition: Definition
) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and facts of one chunk."""
    position = Position(definition.position)
    places = [position_of(one.sequence, position, definition.stop_ids) for one in chunk]
    kept = [(one, place) for one, place in zip(chunk, places, strict=True) if place is not None]
    facts = {
        "item_ids": [one.question.item_id for one, _ in kept],
        "finish_reasons": [one.finish_reason for one, _ in kept],
        "missing": [
            one.question.item_id for one, place in zip(chunk, places, strict=True) if place is None
        ],
    }
    if not kept:
        return {}, facts
    sequences = [one.sequence.ids for one, _ in kept]
    starts = [len(one.question.prompt.ids) for one, _ in kept]
    positions = [place for _, place in kept]
    arrays: Arrays = dict(_states(model, sequences, positions, definition))
    arrays[SCALARS_NAME] = np.stack(
        [
            token_scalars(one.nll, one.entropy, one.margin)
            for one in model.token_statistics(sequences, starts)
        ]
    ).astype(np.float32)
    arrays["positions"] = np.array(positions, dtype=np.int32)
    arrays["response_starts"] = np.array(starts, dtype=np.int32)
    arrays["lengths"] = np.array([len(ids) for ids in sequences], dtype=np.int32)
    arrays["ids"] = np.concatenate([np.array(ids, dtype=np.int32) for ids in sequences])
    return arrays, facts


def _states(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[int],
    definition: Definition,
) -> dict[str, Float32]:
    """Every pooling from one forward pass."""
    wanted = {
        Pooling(name): points_of(Pooling(name), definition.n_layers, definition.last_k)
        for name in definition.poolings
    }
    points: list[HiddenPoint] = list(dict.fromkeys(p for each in wanted.values() for p in each))
    states = model.hidden_states(sequences, positions, points)
    if not np.isfinite(states).all():
        raise UserError("the model's states are not finite: use --dtype float32 or bfloat16")
    return {
        pooling.value: np.ascontiguousarray(
            pooled(states[:, [points.index(point) for point in each]], pooling)
        )
        for pooling, each in wanted.items()
    }


def _save(path: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    # One key: safetensors writes several in an order that changes from process to process, and
    # a continued run must end in the same bytes.
    metadata = {_FACTS: json.dumps(facts, sort_keys=True)}
    write_atomically(path, save(arrays, metadata=metadata))


def _merge(parts: Sequence[Path], out: Path, definition: Definition, *, empty: bool) -> None:
    """One file of all chunks, in order; ``empty``: it may have no rows."""
    found = [_part(path) for path in parts]
    filled = [arrays for arrays, _ in found if arrays]
    facts: dict[str, Any] = {
        key: [value for _, each in found for value in each[key]]
        for key in ("item_ids", "finish_reasons", "missing")
    }
    if not filled and not empty:
        raise UserError(
            f"no answer has the position {definition.position}: raise --n-predict, or choose "
            "--position last_content"
        )
    names = filled[0] if filled else {}
    arrays = {name: np.concatenate([each[name] for each in filled]) for name in names}
    facts |= {
        "definition": definition.to_json(),
        "ids_source": definition.ids_source,
        "scalars": list(SCALARS),
    }
    _save(out, arrays, facts)


def _part(path: Path) -> tuple[Arrays, dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, json.loads(file.metadata()[_FACTS])
