"""Any run: claims wherever they stand in its metrics, provenance, and the metrics as they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.report.stored import StoredRun
from arcs.report.view import (
    Cell,
    ClaimCard,
    Number,
    Picture,
    Row,
    Table,
    Unit,
    View,
    interval_text,
    shown,
)

RESULT_KEYS = ("config", "command", "arc", "schema", "begun")
"""Of the manifest: shown elsewhere."""


def view(run: StoredRun) -> View:
    """Everything that needs no knowledge of the kind."""
    metrics = run.metrics
    notes = () if metrics is not None else (unfinished_note(run),)
    made = dict(made_with(run))
    if metrics is not None:
        made = {"metrics": dict(metrics), **made}
    return View(
        title=title_of(run),
        kind=run.kind,
        subtitle=subtitle_of(run),
        finished=metrics is not None,
        claims=tuple(claims_in(metrics or {})),
        notes=notes,
        tables=tuple(_numbers(metrics or {})),
        figures=pictures(run),
        made_with=made,
        settings=settings_of(run),
    )


def title_of(run: StoredRun) -> str:
    """Directory and model."""
    model = model_name(run)
    return run.name if model is None else f"{run.name}: {model}"


def subtitle_of(run: StoredRun, *more: str) -> str:
    """Kind of run and what identifies it."""
    commit = (run.manifest.get("code") or {}).get("git_commit")
    parts = [run.kind, *more]
    if commit:
        parts.append(f"threearc {str(commit)[:9]}")
    return " · ".join(parts)


def model_name(run: StoredRun) -> str | None:
    """What the manifest calls the model; what was asked for where it is not opened yet."""
    model = run.manifest.get("model")
    if isinstance(model, Mapping) and model.get("name"):
        return str(model["name"])
    asked = settings_of(run).get("model")
    return None if asked is None else str(asked)


def settings_of(run: StoredRun) -> dict[str, Any]:
    """The resolved configuration."""
    config = run.manifest.get("config")
    return dict(config) if isinstance(config, Mapping) else {}


def made_with(run: StoredRun) -> Mapping[str, Any]:
    """How every number was made: the manifest by section, then what differs from run to run."""
    manifest = run.manifest
    found = {"command": manifest.get("command"), "settings": settings_of(run)}
    found |= {key: value for key, value in manifest.items() if key not in RESULT_KEYS}
    if run.timing is not None:
        found["timing"] = dict(run.timing)
    return {key: value for key, value in found.items() if value is not None}


def unfinished_note(run: StoredRun) -> str:
    """Why there is no result."""
    path = shlex.quote(str(run.path))
    again = {
        "settle": f"settle {shlex.quote(str(run.path.parent))}",  # it lies in the run it settles
        "data-generate": f"data generate --run {path}",
    }.get(run.kind, f"{run.kind} --run {path}")
    return f"This run is not finished: it has no metrics.json. Continue it with threearc {again}."


def pictures(run: StoredRun) -> tuple[Picture, ...]:
    """The figures that the run itself saved, in order of their names."""
    return tuple(
        Picture(path.stem.replace("_", " "), path.read_text(encoding="utf-8"))
        for path in sorted((run.path / "figures").glob("*.svg"))
    )


def claims_in(value: Any, *, main_only: bool = False) -> Iterator[ClaimCard]:
    """Every claim in a JSON document: an object with ``statement`` and ``verdict``.

    The first is the one that stands highest. A claim that occurs twice is shown once.
    ``main_only``: an object with a ``claim`` of its own speaks by that one alone; those of its
    parts, such as smaller budgets, are left out.
    """
    seen: set[tuple[str, str, str]] = set()
    found = sorted(_claims(value, (), main_only), key=lambda pair: pair[0])
    for _, card in found:
        key = (card.about, card.statement, card.verdict)
        if key not in seen:
            seen.add(key)
            yield card


def _claims(value: Any, path: tuple[str, ...], main_only: bool) -> Iterator[tuple[int, ClaimCard]]:
    if isinstance(value, Mapping):
        if _is_claim(value):
            yield len(path), card_of(value, about=" / ".join(_without_claim(path)))
            return
        own = value.get("claim")
        if main_only and isinstance(own, Mapping) and _is_claim(own):
            value = {"claim": own}
        for key, inner in value.items():
            yield from _claims(inner, (*path, str(key)), main_only)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, inner in enumerate(value):
            yield from _claims(inner, (*path, str(place)), main_only)


def _is_claim(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("statement"), str) and isinstance(value.get("verdict"), str)


def _without_claim(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in path if part not in ("claim", "claims", "comparison"))


def card_of(claim: Mapping[str, Any], *, about: str = "", unit: Unit = "points",
            **more: Any) -> ClaimCard:  # fmt: skip
    """A card of a stored claim: of :class:`arcs.claims.ClaimVerdict` (a difference of rates) or
    of :class:`arcs.estimates.JudgedClaim` (``estimate``)."""
    estimate = claim.get("estimate")
    if isinstance(estimate, Mapping):
        number = Number.of(estimate["value"], "number", estimate.get("interval"), estimate.get("n"))
        p_value = estimate.get("p_value")
    else:
        number = Number.of(claim.get("delta"), unit, claim.get("interval"), claim.get("n_items"))
        p_value = claim.get("p_value")
    return ClaimCard(
        statement=str(claim["statement"]),
        verdict=str(claim["verdict"]),
        reasons=tuple(str(one) for one in claim.get("reasons") or ()),
        explanation=str(claim.get("explanation") or ""),
        about=about,
        number=number,
        p_value=p_value,
        facts=tuple(_facts(claim)),
        **more,
    )


VALUES = ("value", "rate", "mean", "delta", "difference", "accuracy", "auc", "estimate")
"""Keys under which a number stands beside its ``interval``."""


def _numbers(metrics: Mapping[str, Any]) -> Iterator[Table]:
    """Every number that stands beside its interval, by its path in the metrics."""
    rows = tuple(
        Row(label, (Cell(shown(number), (interval_text(number),), number),))
        for label, number in _found(metrics, ())
    )
    if rows:
        yield Table(
            "numbers", "Numbers with intervals", ("value",), rows, head="in metrics.json",
            caption="By their path in metrics.json, as stored; shares are not in percent.",
        )  # fmt: skip


def _found(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Number]]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = {str(place): inner for place, inner in enumerate(value)}
    if not isinstance(value, Mapping) or path in (("config",), ("made_with",)):
        return
    interval = value.get("interval")
    name = next((one for one in VALUES if isinstance(value.get(one), (int, float))), None)
    if (
        name is not None
        and isinstance(interval, Mapping)
        and interval.keys() >= {"low", "high", "level"}
    ):
        n = value.get("n", value.get("n_items"))
        number = Number.of(value[name], "number", interval, n if isinstance(n, int) else None)
        if number is not None:
            yield " / ".join(path) or name, number
    for key, inner in value.items():
        yield from _found(inner, (*path, str(key)))


def _facts(claim: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    estimate = claim.get("estimate") or {}
    gate = claim.get("gate") or {}
    smallest = gate.get("smallest_effect", claim.get("smallest_effect"))
    if smallest is not None:
        yield (
            "gate",
            f"smallest effect {smallest:g}"
            + (f", alpha {gate['alpha']:g}" if gate.get("alpha") is not None else ""),
        )
    if estimate.get("quantity"):
        yield "quantity", f"{estimate['quantity']} ({estimate.get('interval_method')})"
    null = claim.get("null", estimate.get("null"))
    if null is not None:
        yield "null", str(null)
    alone = claim.get("statistic_verdict")
    if alone is not None and alone != claim["verdict"]:
        yield "the statistic alone", str(alone)
    if claim.get("n_to_settle") is not None:
        yield "items that would settle it", f"{claim['n_to_settle']:,}"
