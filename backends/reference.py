"""DPO's reference: its log-probabilities, computed once, stored with what they are of.

``reference.jsonl`` holds one line that says which model, adapter, data and engine; one line a
pair; and, when complete, the hash of all of it. A kill leaves whole lines, and the next call
goes on behind them; a complete file is never computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backends.adapter_files import weights_sha256
from backends.interface import Float32, LanguageModel, LoraConfig
from backends.preferences import (
    NO_PAIRS,
    CutPairs,
    PreferencePair,
    References,
    cut_pairs,
    pair_rows,
    pairs_sha256,
    reference_groups,
)
from backends.training_config import DpoConfig
from models.errors import UserError
from models.files import canonical_json, write_atomically

ENGINE_KEYS = ("engine", "device", "dtype", "model_fingerprint", "quantised_base")
"""Of :meth:`LanguageModel.describe`: what a number depends on."""


@dataclass(frozen=True)
class ReferenceModel:
    """The frozen policy that DPO measures differences to."""

    kind: Literal["base", "adapter"]
    scale: float | None = None
    """Of the adapter: the factor on B @ A."""
    weights_sha256: str | None = None

    @classmethod
    def base(cls) -> ReferenceModel:
        """The model without an adapter."""
        return cls("base")

    @classmethod
    def adapter(cls, config: LoraConfig, weights: Mapping[str, Float32]) -> ReferenceModel:
        """A frozen adapter, for instance one that SFT gave."""
        return cls("adapter", config.scale, weights_sha256(weights))

    def is_policy(self, config: LoraConfig, start: Mapping[str, Float32] | None) -> bool:
        """Whether a policy that starts from ``start`` (None: a fresh LoRA) equals it."""
        if start is None:
            return self.kind == "base"
        return self == ReferenceModel.adapter(config, start)


@dataclass(frozen=True)
class Reference:
    """Log-probabilities of every pair's two responses under the reference."""

    model: ReferenceModel
    identity: Mapping[str, Any]
    values: References
    sha256: str

    def describe(self) -> dict[str, Any]:
        """For identities and the manifest."""
        return {**asdict(self.model), "logprobs_sha256": self.sha256}


def compute_reference(
    model: LanguageModel,
    what: ReferenceModel,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    config: DpoConfig,
    *,
    file: Path,
    on_pairs: Callable[[int], None] | None = None,
) -> Reference:
    """Compute, or finish, what ``file`` holds, on ``model`` opened as ``what`` says.

    Pairs are cut as in training. ``on_pairs`` hears of every few pairs that are done. Raises
    UserError when ``model`` is not ``what``, ``file`` is of something else, or a
    log-probability is not finite.
    """
    _require_model(model, what)
    cut, held = cut_both(pairs, held_out, config)
    stored = _File(file, _identity(model, what, cut, held, config))
    size = config.train.micro_batch_size
    done = stored.resume(multiple_of=size, total=len(cut.pairs) + len(held.pairs))
    for group in reference_groups(cut, held, size)[-(-done // size) :]:
        values = model.sequence_logprobs(pair_rows(group, normaliser=1.0))
        half = len(group)
        stored.append(
            [
                (pair.item_id, float(values[i]), float(values[half + i]))
                for i, pair in enumerate(group)
            ]
        )
        if on_pairs is not None:
            on_pairs(half)
    stored.finish()
    return load_reference(file)


def is_complete(file: Path) -> bool:
    """Whether ``file`` holds all log-probabilities and their hash."""
    try:
        last = _lines(file.read_text(encoding="utf-8"))[-1]
        return set(json.loads(last)) == {"sha256"}
    except (OSError, ValueError, IndexError, TypeError):
        return False


def load_reference(file: Path) -> Reference:
    """Read a complete file. Raises UserError when it is damaged or not complete."""
    damaged = UserError(f"{file} is damaged or not complete: delete it to compute it again")
    try:
        text = file.read_text(encoding="utf-8")
        first, *middle, last = (json.loads(line) for line in _lines(text))
        head = text.rstrip("\n").rpartition("\n")[0] + "\n"
        if last["sha256"] != _sha256(head):
            raise damaged
        values = {line["id"]: (line["chosen"], line["rejected"]) for line in middle}
        return Reference(ReferenceModel(**first["reference"]), first, values, last["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise damaged from None


def _lines(text: str) -> list[str]:
    """Lines that end with "\\n": an id may hold other separators, such as U+2028."""
    return text.rstrip("\n").split("\n")


def require_same(
    reference: Reference, model: LanguageModel, cut: CutPairs, held: CutPairs, config: DpoConfig
) -> None:
    """Raise UserError when ``reference`` was not computed for this model, data and length."""
    wanted = json.loads(canonical_json(_identity(model, reference.model, cut, held, config)))
    for key, value in wanted.items():
        if reference.identity.get(key) != value:
            raise UserError(
                f"the reference log-probabilities are of {key} {reference.identity.get(key)} and "
                f"not {value}: compute them again in a new directory"
            )


def cut_both(
    pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair], config: DpoConfig
) -> tuple[CutPairs, CutPairs]:
    """Training and held-out pairs, cut; an id in both is an error."""
    length = config.train.max_length
    twice = {pair.item_id for pair in pairs} & {pair.item_id for pair in held_out}
    if twice:
        raise UserError(f"pair {min(twice)} is both a training and a held-out pair")
    held = cut_pairs(held_out, length, "held-out") if held_out else NO_PAIRS
    return cut_pairs(pairs, length), held


def _identity(
    model: LanguageModel, what: ReferenceModel, cut: CutPairs, held: CutPairs, config: DpoConfig
) -> dict[str, Any]:
    described = model.describe()
    return {
        "reference": asdict(what),
        "training_pairs": pairs_sha256(cut.pairs),
        "held_out_pairs": pairs_sha256(held.pairs),
        "max_length": config.train.max_length,
        "pairs_a_batch": config.train.micro_batch_size,
        **{key: described[key] for key in ENGINE_KEYS if key in described},
    }


def _require_model(model: LanguageModel, what: ReferenceModel) -> None:
    try:
        weights = model.lora_weights()
    except UserError:  # no adapter
        found = ReferenceModel.base()
    else:
        found = ReferenceModel("adapter", what.scale, weights_sha256(weights))
    if found != what:
        raise UserError(
            f"the reference is to be {_named(what)}, and the model given is {_named(found)}"
        )


def _named(what: ReferenceModel) -> str:
    if what.weights_sha256 is None:
        return "the base model"
    return f"the adapter with weights {what.weights_sha256[:12]}"


class _File:
    """reference.jsonl while it is made."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._first = canonical_json(identity) + "\n"

    def resume(self, *, multiple_of: int, total: int) -> int:
        """Keep the whole batches that are there; returns their pairs.

        A batch that was cut by a kill is computed again as it was: its values may depend on
        its neighbours in the last digit.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        lines = [line + "\n" for line in text.split("\n")[:-1]]
        if lines and lines[0] != self._first:
            raise UserError(
                f"{self._path} holds log-probabilities of another model, adapter, data or "
                "setting: use a new directory"
            )
        entries = [line for line in lines[1:] if "id" in json.loads(line)]
        done = len(entries) if len(entries) == total else len(entries) // multiple_of * multiple_of
        if len(lines) < total + 2:  # not finished
            write_atomically(self._path, (self._first + "".join(entries[:done])).encode())
        return done

    def append(self, values: Sequence[tuple[str, float, float]]) -> None:
        for item, chosen, rejected in values:
            if not (math.isfinite(chosen) and math.isfinite(rejected)):
                raise UserError(
                    f"the reference's log-probability of pair {item} is not finite ({chosen}, "
                    f"{rejected}): use dtype float32 or bfloat16, or remove the pair"
                )
        lines = (
            canonical_json({"id": item, "chosen": chosen, "rejected": rejected}) + "\n"
            for item, chosen, rejected in values
        )
        self._write("".join(lines))

    def finish(self) -> None:
        if not is_complete(self._path):
            self._write(
                canonical_json({"sha256": _sha256(self._path.read_text(encoding="utf-8"))}) + "\n"
            )

    def _write(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
