"""Features, labels and answers in files, as anyone would bring them, and a finished run by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs import provenance
from arcs.arc3 import features
from arcs.runs import METRICS, RunDirectory
from evals.probing.baselines import SCALARS

SETS = ("train", "fresh")
SIGNAL = 3.0


@dataclass
class Made:
    """Both sets of one model; what is changed before :meth:`write` is what files hold."""

    folder: Path
    x: dict[str, dict[str, NDArray[np.float32]]]
    """By set: h_last [n, d] and all_layers [n, 3, d]."""
    rows: dict[str, list[dict[str, Any]]]
    """By set, in the order of the features: item_id, right, hedging, prompt, response, ..."""
    facts: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Of a set's features, ``labels`` or ``answers``."""
        suffix = "jsonl" if name in ("labels", "answers") else "npz"
        return self.folder / f"{name}.{suffix}"

    def write_features(self, name: str) -> Path:
        """One set's rows."""
        facts = {key: np.array(value) for key, value in self.facts.items()}
        ids = np.array([row["item_id"] for row in self.rows[name]])
        np.savez(self.path(name), ids=ids, **self.x[name], **facts)  # type: ignore[arg-type]
        return self.path(name)

    def write(self, *, labels: Sequence[str] = ("right", "hedging")) -> Made:
        """Everything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in SETS:
            self.write_features(name)
        every = [row for name in SETS for row in self.rows[name]]
        answers = ("prompt", "response", "finish_reason")
        write_lines(self.path("labels"), [_only(row, ("item_id", "n_parts", *labels))
                                          for row in every])  # fmt: skip
        write_lines(self.path("answers"), [_only(row, ("item_id", *answers)) for row in every])
        return self

    def flags(self, prefix: str = "", *, answers: bool = False, **more: Any) -> dict[str, Any]:
        """Of the command. Without ``answers`` it is stated that none was cut, which is faster."""
        named = {"features": "train", "fresh": "fresh", "labels": "labels"}
        if answers:
            named["responses"] = "answers"
        given = {prefix + flag: self.path(name) for flag, name in named.items()}
        own = {} if prefix else {"profile": "quick", **({} if answers else {"untruncated": True})}
        return {**given, **own, **more}


def made(
    folder: Path,
    *,
    seed: int = 0,
    n: int = 120,
    signal: Mapping[str, float] | float = SIGNAL,
    rate: Mapping[str, float] | float = 0.45,
    cut: float = 0.0,
    family: str | None = None,
) -> Made:
    """A label worth ``signal`` standard deviations along one column, an axis along another."""
    rng = np.random.default_rng(seed)
    x: dict[str, dict[str, NDArray[np.float32]]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in SETS:
        strength = signal if isinstance(signal, float) else signal[name]
        share = rate if isinstance(rate, float) else rate[name]
        right, hedging = rng.random(n) < share, rng.random(n) < 0.5
        states = rng.normal(size=(n, 16))
        states[:, 3] += strength * right
        states[:, 5] += 3 * hedging
        layers = states[:, None] + rng.normal(size=(n, 3, 16))
        x[name] = {"h_last": states.astype(np.float32), "all_layers": layers.astype(np.float32)}
        rows[name] = [
            {
                "item_id": f"{seed}-{name}-{i}",
                "right": bool(right[i]),
                "hedging": bool(hedging[i]),
                "prompt": f"Question {name} {i}?",
                "response": " ".join(rng.choice(["salt", "lake", "roof", "pine"], 5)) + ".",
                "finish_reason": "length" if rng.random() < cut else "stop",
            }
            for i in range(n)
        ]
    facts = {"model": f"model-{seed}", **({} if family is None else {"family": family})}
    return Made(folder, x, rows, facts)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def finished_run(
    found: Made, out: Path, *, gates: Mapping[str, Any] | None = None, **manifest: Any
) -> Path:
    """The files of a run of Arc 3 with these rows: features, labels, metrics, manifest."""
    from safetensors.numpy import save_file

    out.mkdir(parents=True)
    right: dict[str, bool | None] = {}
    for name in SETS:
        rows, n = found.rows[name], len(found.rows[name])
        ids = np.random.default_rng(0).integers(0, 40, size=(n, 9)).astype(np.int32)
        arrays = {
            **found.x[name],
            "token_scalars": np.zeros((n, len(SCALARS)), dtype=np.float32),
            "ids": ids.ravel(),
            "lengths": np.full(n, 9, dtype=np.int32),
            "response_starts": np.full(n, 4, dtype=np.int32),
            "positions": np.full(n, 8, dtype=np.int32),
        }
        facts = {
            "item_ids": [row["item_id"] for row in rows],
            "missing": [],
            "definition": {"position": "last_content"},
            "finish_reasons": [row["finish_reason"] for row in rows],
        }
        metadata = {"facts": json.dumps(facts)}
        save_file(arrays, features.path_of(out, name), metadata=metadata)  # type: ignore[arg-type]
        right |= {row["item_id"]: row["right"] for row in rows}
    whole = {
        **provenance.first_manifest("arc3", {"labels": "exact-match"}, []),
        "model": {"name": found.facts["model"], "fingerprint": found.facts["model"],
                  "family": found.facts.get("family")},
        "gates": dict(gates or {}),
        "ids_from": None,
        **manifest,
    }  # fmt: skip
    (out / "manifest.json").write_text(json.dumps(whole))
    with RunDirectory.resume(out) as run:
        run.write_json("labels.json", {"right": right})
        run.write_json(METRICS, {"claims": {"transfer": {"verdict": "SUPPORTED", "reasons": []}}})
    return out


def _only(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}
