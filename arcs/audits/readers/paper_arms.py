"""The arms of Arc 1 and of the tempering sweep in the paper's files (PAPER.md 3, 4.6, 9)."""

from __future__ import annotations

from collections.abc import Iterator

from arcs.audits.readers.labels import clean
from arcs.audits.readers.paper_files import Files
from arcs.audits.readers.source import require_distinct, require_same_length
from arcs.audits.results import Instrument, Item, LabelKind, Reported, ResultSet

HUMANEVAL_BUDGET = 512
"""max_new_tokens of the harness that wrote the two HumanEval files (PAPER.md 3.2)."""
CUT_MCAS = 2000
"""Characters of a response that the MCAS judge saw (PAPER.md 6)."""
ARC1_ARMS = (("baseline", "base"), ("dd_fp16", "dd_fp16"))
"""Name in the files, and ours."""
COUNTERS = (
    "incorrect_technique", "incorrect_regional", "incorrect_ingredient", "invented_count",
    "implausible_temps",
)  # fmt: skip


def _verifier(files: Files) -> Iterator[ResultSet]:
    """The verifier's scores of two conditions over the same prompts."""
    instruments = {
        "score": Instrument("score", LabelKind.SCORE, scale=(0.0, 1.0)),
        "passed": Instrument("passed", LabelKind.PASS),
        **{name: Instrument(name, LabelKind.SCORE) for name in COUNTERS},
    }
    for condition, arm in (("baseline", "base"), ("full_ddv2", "full_ddv2")):
        kind = f"verifier_{condition}"
        if not files.has(kind):
            continue
        document = files.json(kind)
        items = tuple(
            Item(
                item_id=f"row/{row['i']}",
                prompt=row["prompt"],
                response=row["response"],
                labels={name: clean(row[name]) for name in instruments},
            )
            for row in document["rows"]
        )
        require_distinct(items, str(files.path(kind)))
        yield ResultSet(
            f"chef verifier {arm}", files.path(kind), items, instruments, arm=arm,
            task="chef verifier", family="chef verifier",
            reported=tuple(
                Reported(name, float(value), has_interval=False)
                for name, value in document["summary"].items()
                if isinstance(value, float)
            ),
        )  # fmt: skip


def _reported(files: Files, *names: str) -> tuple[Reported, ...]:
    """Headline numbers of the Arc 1 run, in percent."""
    if not files.has("eval_results"):
        return ()
    document = files.json("eval_results")
    return tuple(
        Reported(name, float(document[name]), has_interval=False)
        for name in names
        if document.get(name) is not None
    )


def _humaneval(files: Files) -> Iterator[ResultSet]:
    for source, arm in ARC1_ARMS:
        kind = f"humaneval_{source}"
        if not files.has(kind):
            continue
        items = tuple(
            Item(item_id=row["task_id"], labels={"passed": clean(row["passed"])})
            for row in files.json(kind)
        )
        require_distinct(items, str(files.path(kind)))
        yield ResultSet(
            f"HumanEval {arm}", files.path(kind), items,
            {"passed": Instrument("passed", LabelKind.PASS)}, arm=arm, task="HumanEval",
            n_predict=HUMANEVAL_BUDGET, family="arc1",
            reported=_reported(files, f"{source}_humaneval", f"{source}_svr"),
        )  # fmt: skip


def _mcas(files: Files) -> Iterator[ResultSet]:
    if not files.has("mcas_details"):
        return
    document = files.json("mcas_details")
    instrument = Instrument("mcas", LabelKind.SCORE, scale=(0.0, 2.0), response_cut=CUT_MCAS)
    for source, arm in ARC1_ARMS:
        scores = document[f"{source}_scores"]
        lengths = {"scores": len(scores), "prompts": len(document["prompts"])}
        require_same_length(files.path("mcas_details"), lengths)
        items = tuple(
            Item(
                item_id=f"mcas/{i}",
                prompt=prompt["prompt"],
                labels={"mcas": None if score == -1 else clean(score)},
            )
            for i, (prompt, score) in enumerate(zip(document["prompts"], scores, strict=True))
        )
        yield ResultSet(
            f"MCAS {arm}", files.path("mcas_details"), items, {"mcas": instrument}, arm=arm,
            task="MCAS", family="arc1", reported=_reported(files, f"{source}_mcas"),
        )  # fmt: skip


def _alpha_sweep(files: Files) -> Iterator[ResultSet]:
    """Texts of every strength; the file stores their tokens, and no labels."""
    if not files.has("alpha_sweep"):
        return
    document = files.json("alpha_sweep")
    for alpha in document["alphas"]:
        items = tuple(
            Item(
                item_id=row["tag"],
                prompt=row["prompt"],
                response=row["by_alpha"][str(alpha)]["text"],
                generated_tokens=row["by_alpha"][str(alpha)]["n_tok"],
            )
            for row in document["items"]
        )
        yield ResultSet(
            f"alpha sweep, alpha {alpha:g}", files.path("alpha_sweep"), items,
            arm="base" if alpha == 0 else f"alpha {alpha:g}", task="alpha sweep",
            family="alpha sweep",
        )  # fmt: skip


BUILDERS = (_verifier, _humaneval, _mcas, _alpha_sweep)
"""Each gives the sets of the files that are there."""
