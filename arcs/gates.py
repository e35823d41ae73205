"""The gates file: thresholds fixed before a run, known by the hash of the file."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from models.errors import UserError

DEFAULT_GATES = Path(__file__).with_name("gates.toml")


@dataclass(frozen=True)
class SmallestEffect:
    """The smallest effects that matter, as differences of shares between 0 and 1 where no other
    unit is given."""

    pass_at_1: float
    auc: float
    rate: float
    meter: float
    """Standard deviations of the base's contrasts over items."""
    shift: float
    """Of the meter within one model, nats per token (Arc 2)."""
    loss: float
    """Of log-likelihood where nothing is right or wrong, nats per token (Arc 2)."""
    separation: float
    """Between two cohorts of answers, Cohen's d (Arc 2)."""


@dataclass(frozen=True)
class ErrorRates:
    """Error rates of the tests."""

    alpha: float
    power: float


@dataclass(frozen=True)
class ValidityGate:
    """When an instrument counts as failed."""

    max_missing_share: float
    interaction_alpha: float


@dataclass(frozen=True)
class JudgeGate:
    """What a judge must reach before a claim may rest on it."""

    kappa_low: float
    """Smallest lower bound of kappa."""
    planted_accepted: float
    """Largest share of planted errors accepted."""
    parsed: float
    """Smallest share of labels with status ``ok``."""


@dataclass(frozen=True)
class VerifierGate:
    """What the Chef verifier must reach before its score may be used."""

    ranked_right: float
    """Smallest share of the shipped test pairs ranked right."""


@dataclass(frozen=True)
class ProtocolGate:
    """What each step of the falsification protocol asks for (PAPER.md section 7)."""

    cv_auc: float
    cv_asymmetry: float
    """Sizes of asymmetries that lie below zero: 0.20 asks for -0.20 or less."""
    fresh_auc: float
    fresh_asymmetry: float
    axis_cv_auc: float
    axis_fresh_auc: float
    axis_correlation: float
    """Two axes whose scores correlate as much, either way, are one axis."""
    asserted_right: float
    """Share of the right answers that a balanced threshold asserts."""


@dataclass(frozen=True)
class Gates:
    """One gates file."""

    smallest_effect: SmallestEffect
    test: ErrorRates
    validity: ValidityGate
    judge: JudgeGate
    verifier: VerifierGate
    protocol: ProtocolGate
    sha256: str
    """Of the file's bytes."""

    @property
    def level(self) -> float:
        """Confidence level of all intervals."""
        return 1 - self.test.alpha

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, for the manifest."""
        return asdict(self)


TABLES: Mapping[str, type[Any]] = {
    "smallest_effect": SmallestEffect,
    "test": ErrorRates,
    "validity": ValidityGate,
    "judge": JudgeGate,
    "verifier": VerifierGate,
    "protocol": ProtocolGate,
}


def load_gates(path: Path = DEFAULT_GATES) -> Gates:
    """Read a gates file; raises UserError on a missing, unknown or impossible entry."""
    try:
        content = path.read_bytes()
        tables = tomllib.loads(content.decode())
    except OSError as error:
        raise UserError(f"cannot read the gates file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the gates file {path} is not TOML: {error}") from error
    _check_keys(path, "", tables, tuple(TABLES))
    found = {name: kind(**_numbers(path, tables, name, kind)) for name, kind in TABLES.items()}
    return Gates(**found, sha256=hashlib.sha256(content).hexdigest())


def stored_gates(found: Mapping[str, Any], where: str) -> Gates:
    """Inverse of :meth:`Gates.to_json`. Raises UserError for those of another version."""
    try:
        return Gates(**{name: kind(**found[name]) for name, kind in TABLES.items()},
                     sha256=found["sha256"])  # fmt: skip
    except (KeyError, TypeError):
        raise UserError(f"{where}: its gates are those of another version of threearc") from None


def _numbers(path: Path, tables: Mapping[str, Any], name: str, kind: type[Any]) -> dict[str, float]:
    """Check one table against the fields of its dataclass: all numbers between 0 and 1.

    An AUC that the protocol asks for lies above that of chance.
    """
    table = tables[name]
    if not isinstance(table, dict):
        raise UserError(f"{path}: {name} must be a table, [{name}]")
    _check_keys(path, f"{name}.", table, tuple(field.name for field in fields(kind)))
    for key, value in table.items():
        least = 0.5 if name == "protocol" and key.endswith("auc") else 0
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least < value < 1:
            raise UserError(
                f"{path}: {name}.{key} must be a number between {least} and 1, not {value!r}"
            )
    return {key: float(value) for key, value in table.items()}


def _check_keys(
    path: Path, prefix: str, table: Mapping[str, Any], expected: tuple[str, ...]
) -> None:
    known = ", ".join(expected)
    for key in table:
        if key not in expected:
            raise UserError(f"{path}: unknown entry {prefix}{key}; known are {known}")
    for key in expected:
        if key not in table:
            raise UserError(f"{path}: {prefix}{key} is missing; all of {known} are needed")
