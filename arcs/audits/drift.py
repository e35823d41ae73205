"""Audit of settings that differ between what is compared: arms, label runs, feature runs.

The paper's labels came from 4-bit runs and its features from bf16, one baseline had another
repetition penalty than its comparison, and training and test features were read at different
positions (PAPER.md 8.2 T2, T7; 8.3 S8).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.results import Results, ResultSet
from arcs.audits.set_pairs import Pair, base_of, between, train_test_pairs

LOADING = ("dtype", "precision", "quant", "bits", "template", "engine", "backend")
"""Parts of names of settings under which a model is loaded and prompted."""
DECODING = (
    *("decod", "sampl", "greedy", "temperature", "top_p", "top_k", "min_p", "penalty"),
    *("n_predict", "max_tokens", "max_new_tokens", "num_predict"),
)
EXTRACTION = ("position", "layer", "pool", "normalis", "normaliz")
"""An edit's own settings (weights, adapter, strength, seed, system prompt) are what arms differ
in, and are not compared."""
_ALIASES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "f16": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
}
_MODULE = re.compile(r"^(torch|mx|mlx\.core|numpy|np|jnp)\.")


@dataclass(frozen=True)
class Compared:
    """Two runs whose settings must agree."""

    where: str
    what: str
    first: Mapping[str, str]
    second: Mapping[str, str]
    severity: Severity
    """Of settings that differ."""

    def differing(self) -> list[str]:
        """Settings that both store and that differ."""
        common = (name for name in self.first if name in self.second)
        return [name for name in common if not same_value(self.first[name], self.second[name])]

    def on_one_side(self) -> list[str]:
        """Settings that only one of the two stores."""
        return sorted(set(self.first) ^ set(self.second))


def same_value(first: str, second: str) -> bool:
    """Whether two spellings of a setting mean the same: bf16 is torch.bfloat16, 1 is 1.0."""
    return _plain(first) == _plain(second)


def _plain(value: str) -> str:
    text = _MODULE.sub("", str(value).strip().lower())
    text = _ALIASES.get(text, text)
    try:
        return repr(float(text))
    except ValueError:
        return text


def _chosen(settings: Mapping[str, str], parts: tuple[str, ...]) -> dict[str, str]:
    plain = {name.lower().replace("-", "_"): value for name, value in settings.items()}
    return {name: value for name, value in plain.items() if any(part in name for part in parts)}


def _run_settings(one: ResultSet) -> dict[str, str]:
    stored = _chosen(one.settings, LOADING + DECODING)
    return stored if one.n_predict is None else {**stored, "n_predict": str(one.n_predict)}


def _arms(results: Results) -> Iterator[Pair]:
    """Each set of another arm, with the base set of its task that has its budget, or any."""
    found: dict[tuple[object, ...], list[ResultSet]] = defaultdict(list)
    for one in results.sets:
        if one.arm is not None:
            found[one.family, one.task, one.role].append(one)
    for sets in found.values():
        first = base_of(sets).arm
        bases = [one for one in sets if one.arm == first]
        for other in (one for one in sets if one.arm != first):
            same = (base for base in bases if base.n_predict == other.n_predict)
            yield next(same, bases[0]), other


def _of_arms(pair: Pair) -> Compared:
    first, second = (_run_settings(one) for one in pair)
    # DESIGN.md section 5: decoding that differs between arms is an instrument fault.
    return Compared(between(*pair), "the two arms", first, second, Severity.INVALIDATES)


def _of_label_and_features(one: ResultSet) -> Compared:
    stored = one.features.settings if one.features else {}
    # A feature run reads texts that exist: it decodes nothing.
    first, second = _chosen(one.settings, LOADING), _chosen(stored, LOADING)
    what = "the run that made responses and labels and the one that made features"
    return Compared(one.name, what, first, second, Severity.BIASES)


def _of_features(pair: Pair) -> list[Compared]:
    train, test = (one.features for one in pair)
    if train is None or test is None:
        return []
    where, runs = between(*pair), "feature runs of training and test set"
    kinds = (
        (f"the {runs}", LOADING, Severity.BIASES),
        (f"position and layer in the {runs}", EXTRACTION, Severity.INVALIDATES),
    )
    return [
        Compared(where, what, _chosen(train.settings, k), _chosen(test.settings, k), severity)
        for what, k, severity in kinds
    ]


def _of_train_and_test(pair: Pair) -> Compared:
    first, second = (_run_settings(one) for one in pair)
    what = "the runs that made responses and labels of training and test set"
    return Compared(between(*pair), what, first, second, Severity.BIASES)


def compared(results: Results) -> list[Compared]:
    """All pairs of runs in these results whose settings must agree."""
    pairs = train_test_pairs(results)
    with_features = [one for one in results.sets if one.features is not None]
    return [
        *map(_of_arms, _arms(results)),
        *map(_of_label_and_features, with_features),
        *map(_of_train_and_test, (pair for pair in pairs if _of_one_arm(pair))),
        *(one for pair in pairs for one in _of_features(pair)),
    ]


def _of_one_arm(pair: Pair) -> bool:
    return pair[0].arm == pair[1].arm


def decoding_drift(results: Results) -> Outcome:
    """Compare dtype, quantisation, template, engine, decoding and feature position."""
    runs = compared(results)
    return outcome([finding for one in runs for finding in _drift(one)], len(runs))


def _drift(one: Compared) -> Iterator[Finding]:
    differing = one.differing()
    if differing:
        shown = ", ".join(f"{n} ({one.first[n]} against {one.second[n]})" for n in differing)
        yield Finding(
            one.severity,
            one.where,
            f"Settings of {one.what} differ: {shown}.",
            "Repeat one of them with the settings of the other.",
            {"differ": {n: [one.first[n], one.second[n]] for n in differing}},
        )
    alone = one.on_one_side()
    if alone or not one.first:
        yield _not_stored(one, alone)


def _not_stored(one: Compared, alone: list[str]) -> Finding:
    said = f"only one stores {', '.join(alone)}" if alone else "neither stores any"
    evidence: dict[str, Evidence] = {
        "on_one_side": [*alone],
        "first": dict(one.first),
        "second": dict(one.second),
    }
    return Finding(
        Severity.CAUTION,
        one.where,
        f"Settings of {one.what} cannot be compared: {said}.",
        "Store dtype, quantisation, template, engine, decoding and position with every run.",
        evidence,
    )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "decoding-drift",
        "Do dtype, quantisation, template, engine, decoding or position differ between runs?",
        "two arms, a training and a test set, or features",
        decoding_drift,
    ),
)
