"""What was asked and answered at every point of the sweep, for ``transcripts.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arcs.arc2.dispositions import Labelled
from arcs.arc2.selection import BASE, TOP
from arcs.arc2.sources import Source, meter_context
from arcs.transcripts import Said, Texts, Transcript
from evals.meter import EncodedPair

if TYPE_CHECKING:
    from arcs.arc2.pipeline import Prepared

LABELS, TASKS, METER = "labels", "tasks", "meter"
"""Values of the facet ``asked``."""
USES = "used for"
COHORTS, SWEEP, ABLATIONS = "cohorts", "sweep", "ablations"


@dataclass(frozen=True)
class Answers:
    """Everything that was answered, by the point's name."""

    points: Mapping[str, Sequence[Labelled]]
    """To the labels' prompts; at lambda 1 to all of them."""
    tasks: Mapping[str, Sequence[Labelled]]
    gguf: Mapping[str, Sequence[Labelled]]


def transcripts(
    prepared: Prepared, answers: Answers, uses: Mapping[str, Iterable[str]]
) -> Iterator[Transcript]:
    """Answered items, then those of the meter that were read only.

    ``uses``: :data:`COHORTS` and :data:`SWEEP` -> the prompts that are used for them.
    """
    source = prepared.source
    said = [
        *_said(answers.points, source, prepared.n_predict),
        *_said(answers.gguf, source, prepared.n_predict, "gguf."),
    ]
    meter = {
        one.item.id: one
        for one in (*prepared.cohort_pairs, *prepared.causal_pairs, *prepared.axis_pairs)
    }
    used = {name: frozenset(items) for name, items in uses.items()}
    asked = source.asked
    for item_id, found in _by_item(said).items():
        names = tuple(name for name, items in used.items() if item_id in items)
        facets: dict[str, str | tuple[str, ...]] = {"asked": LABELS}
        if names:
            facets[USES] = names
        pair = meter.pop(item_id, None)
        of = asked[item_id]
        blocks = of.blocks if pair is None else _texts(pair)
        yield Transcript(item_id, of.prompt, facets, blocks, tuple(found))
    tasks = prepared.tasks
    if tasks is not None:
        listed = tasks.asked
        for item_id, found in _by_item(
            _said(answers.tasks, tasks, prepared.tasks_n_predict, what=TASKS)
        ).items():
            of = listed[item_id]
            yield Transcript(item_id, of.prompt, {"asked": TASKS}, of.blocks, tuple(found))
    ablated = {one.item.id for one in prepared.causal_pairs}
    for item_id, pair in meter.items():
        use = ABLATIONS if item_id in ablated else SWEEP
        facets = {"asked": METER, "axis": pair.item.axis, USES: use}
        yield Transcript(item_id, meter_context(pair.item), facets, _texts(pair))


def _texts(pair: EncodedPair) -> Texts:
    return (
        ("positive continuation", "words", pair.item.positive),
        ("negative continuation", "words", pair.item.negative),
    )


def _said(
    points: Mapping[str, Sequence[Labelled]], source: Source, n_predict: int, prefix: str = "",
    what: str = "",
) -> Iterator[tuple[str, Said]]:  # fmt: skip
    """Item and answer: the unchanged model's first, then of the chosen heads, then of controls.

    ``prefix``: before the point's name.
    """
    ordered = sorted(points, key=lambda name: (name != BASE, not name.startswith(TOP)))
    before = {one.key: one.ids for one in points.get(BASE, ())}
    for name, answers in ((one, points[one]) for one in ordered):
        at = f"{what or prefix.rstrip('.')}.{name}" if what or prefix else name
        for one in answers:
            yield (
                one.item_id,
                Said(
                    condition=f"{prefix}{name}",
                    against=None if name == BASE else f"{prefix}{BASE}",
                    changed=None if name == BASE else one.ids != before[one.key],
                    n_predict=n_predict,
                    text=one.text,
                    right=one.right,
                    asserted=one.asserted,
                    silent=one.silent,
                    truncated=one.truncated,
                    loop=one.loop,
                    open=one.open,
                    detail=one.detail,
                    seed=one.seed,
                    coverage=one.coverage,
                    response=source.response_id(at, one.item_id, one.seed),
                    program=one.program,
                    output=one.output,
                ),
            )


def _by_item(said: Iterable[tuple[str, Said]]) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = {}
    for item_id, one in said:
        found.setdefault(item_id, []).append(one)
    return found
