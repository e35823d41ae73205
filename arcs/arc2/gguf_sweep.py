"""The same heads and lambdas through llama.cpp: quantised weights, as they are shipped.

All lambdas, 1 included, have the scaled tensors in one storage form, so that what is measured is
the scaling and not another rounding; the untouched file stands beside them (DESIGN section 3).
The meter's texts are not read here, so the axis is the text measure's, or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcs import provenance
from arcs.arc2 import stages
from arcs.arc2.config import Arc2Config
from arcs.arc2.dispositions import Labelled
from arcs.arc2.findings import AtPoint, Sweep, right
from arcs.arc2.metrics import points_json, sweep_answers
from arcs.arc2.selection import BASE, UNCHANGED, Point, Selection, points
from arcs.instrument import require_same_instrument
from arcs.progress import Reporter
from arcs.runs import RunDirectory

if TYPE_CHECKING:
    from arcs.arc2.pipeline import Axis, Prepared

UNTOUCHED = Point("untouched", 1.0, ())
WHAT = "gguf"
CONTEXT_STEP = 256


def sweep_gguf(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    selection: Selection,
    reporter: Reporter,
) -> None:
    """Answer the sweep's prompts at every point through llama.cpp."""
    from arcs.arc2.pipeline import sweep_prompts
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf
    from models.store import cache_root

    prompts = sweep_prompts(config, prepared)
    source = evaluation_gguf(
        prepared.directory, str(config.gguf), cache_root() / "gguf", say=reporter.say
    )
    longest = max(len(one.ids) for one in prompts) + prepared.n_predict
    context = -(-longest // CONTEXT_STEP) * CONTEXT_STEP
    for point in (UNTOUCHED, *points(selection, config.scales, config.controls)):
        stores = {seed: stages.answers_store(run, point, seed, WHAT) for seed in config.decodings}
        if all(len(store.records) >= len(prompts) for store in stores.values()):
            continue
        with (
            run.timed(f"gguf {point.name}") as counts,
            _file(source, run, point, selection) as (path, made),
            open_gguf(path, context=context) as model,
        ):
            engine = {**model.describe(), "processor": provenance.hardware()["processor"], **made}
            first = run.manifest().get("engine.gguf.untouched")
            if first is not None:
                require_same_instrument(run.path, ("untouched", point.name), first, engine)
            run.extend_manifest(**{f"engine.gguf.{point.name}": engine})
            counts["tokens"] = sum(
                stages.answer(
                    model, prompts, store, f"gguf {point.name}", reporter,
                    n_predict=prepared.n_predict, stop_ids=prepared.encoder.stop_ids,
                    sampling=config.sampling(seed or 0),
                )
                for seed, store in stores.items()
            )  # fmt: skip


@contextmanager
def _file(
    source: Path, run: RunDirectory, point: Point, selection: Selection
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The file of one point; a scaled copy is removed at the end, and what a kill left of one."""
    from models.gguf.temper import temper_gguf

    if point is UNTOUCHED:
        yield source, {}
        return
    folder = run.path / "files"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    out = folder / f"{point.name}.gguf"
    report = temper_gguf(source, out, point.factors, layers=selection.layers)
    try:
        yield out, {"tempering": {"rounding": report.rounding, "retyped": list(report.retyped)}}
    finally:
        out.unlink(missing_ok=True)


def gguf_answers(
    config: Arc2Config, run: RunDirectory, prepared: Prepared, selection: Selection
) -> dict[Point, tuple[Labelled, ...]]:
    """The stored answers of :func:`sweep_gguf`, labelled; empty where it was not asked for."""
    if config.gguf is None:
        return {}
    return {
        point: sweep_answers(
            run, prepared.source, prepared.source.prompts, config.decodings, point, WHAT
        )
        for point in (UNTOUCHED, *points(selection, config.scales, config.controls))
    }


def read_gguf(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    axis: Axis,
    answers: Mapping[Point, tuple[Labelled, ...]],
) -> dict[str, Any]:
    """The answers of :func:`gguf_answers`, compared with lambda 1 in the same storage form."""
    made = tuple(answers)
    found = {point.name: AtPoint(point, said, {}, {}) for point, said in answers.items()}
    sweep = Sweep(
        points={BASE: found.pop(UNCHANGED.name), **found},
        disposition=prepared.disposition,
        axis=axis.kind if axis.kind == "text" else "none",
        seeds=config.decodings,
        gates=prepared.gates,
    )
    manifest = run.manifest()
    engines = [manifest[f"engine.gguf.{point.name}"] for point in made]
    changed = sweep.content_effects(UNTOUCHED.arm, right, right)
    return {
        "quantisation": config.gguf,
        "rounding": max(one.get("tempering", {}).get("rounding", 0.0) for one in engines),
        "retyped": sorted(
            {t for one in engines for t in one.get("tempering", {}).get("retyped", ())}
        ),
        "untouched_against_lambda_1": {k: one.to_json() for k, one in changed.items()},
        "points": points_json(sweep),
    }
