"""``threearc falsify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json


@app.command(
    "falsify",
    epilog="""
Examples:\n
  threearc falsify                                       (the latest runs of the arcs, one page)\n
  threearc falsify runs/arc3-20260101-120000\n
  threearc falsify runs/arc3-a --replication runs/arc3-other-model\n
  threearc falsify --adapter runs/arc1-a/adapter --model SmolLM2-135M-Instruct\n
  threearc falsify --features train.npz --fresh fresh.npz --labels labels.jsonl\n
  threearc falsify --features train.safetensors --fresh fresh.safetensors
  --labels labels.csv --responses answers.jsonl --axis right\n
  threearc falsify --run runs/falsify-20260101-120000    (continue; also once the fresh set is made)
""",
)
def falsify(
    source: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A finished run of arc3",
                                    show_default=False)
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Rows of the training set: .npz or .safetensors with item ids",
                     show_default=False),
    ] = None,
    fresh: Annotated[
        Path | None,
        typer.Option(help="Rows of the fresh set; may be a file that is still to be made",
                     show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels by item id: a table, or what threearc audit reads",
                     show_default=False),
    ] = None,
    fresh_labels: Annotated[
        Path | None,
        typer.Option(help="Of the fresh set, where --labels has them not", show_default=False),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(help="item_id, response, finish_reason, prompt: as --labels",
                     show_default=False),
    ] = None,
    fresh_responses: Annotated[
        Path | None,
        typer.Option(help="Of the fresh set, where --responses has them not", show_default=False),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(help="A LoRA adapter: base and edited model answer short questions and are "
                     "read as by arc3, after the gates are written", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its base (SmolLM2-135M-Instruct)", show_default=False)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="For --adapter: auto (default), torch, mlx or gguf", show_default=False),
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(help="For --adapter: short-answers (default) or recall", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="For --adapter: items of each set, at least 10", show_default=False),
    ] = None,
    n_predict: Annotated[
        int | None,
        typer.Option(help="For --adapter: token budget of an answer", show_default=False),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="field=column pairs for tables, with commas between or repeated"),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(help="The label that the claim is about (right, correct or passed)",
                     show_default=False),
    ] = None,
    pooled: Annotated[
        str | None,
        typer.Option(help="The states of step 4 (mean_normed, or all_layers)", show_default=False),
    ] = None,
    untruncated: Annotated[
        bool | None,
        typer.Option("--untruncated/--no-untruncated", show_default=False,
                     help="State that no answer was cut by its token budget"),
    ] = None,
    replication: Annotated[
        Path | None,
        typer.Option(help="A finished run of arc3 on a model of another family",
                     show_default=False),
    ] = None,
    replication_features: Annotated[
        Path | None,
        typer.Option(help="Or its rows, with --replication-fresh and --replication-labels",
                     show_default=False),
    ] = None,
    replication_fresh: Annotated[
        Path | None, typer.Option(help="The other model's fresh rows", show_default=False)
    ] = None,
    replication_labels: Annotated[
        Path | None, typer.Option(help="The other model's labels", show_default=False)
    ] = None,
    replication_fresh_labels: Annotated[
        Path | None, typer.Option(help="Of its fresh set, if in another file", show_default=False)
    ] = None,
    replication_responses: Annotated[
        Path | None, typer.Option(help="The other model's responses", show_default=False)
    ] = None,
    replication_fresh_responses: Annotated[
        Path | None, typer.Option(help="Of its fresh set, if in another file", show_default=False)
    ] = None,
    gates: Annotated[
        Path | None,
        typer.Option(help="Another gates file than the one that ships", show_default=False),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="standard (default) or quick: fewer permutations", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of folds and permutations", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new run", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Continue this run where it was stopped", show_default=False),
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:  # fmt: skip
    """Does a claim about hidden states survive five steps, their gates fixed beforehand?

    Cross-validation (never evidence), fresh items, every axis, pooled layers, another model. Says
    why a claim fails, too. Needs no engine but for --adapter: features and labels of any tool will
    do. Without RUN, --adapter or --features: the latest runs of the arcs.
    """
    given: dict[str, Any] = {
        "source": source,
        "features": features,
        "fresh": fresh,
        "labels": labels,
        "fresh_labels": fresh_labels,
        "responses": responses,
        "fresh_responses": fresh_responses,
        "adapter": adapter,
        "model": model,
        "backend": backend,
        "items": items,
        "limit": limit,
        "n_predict": n_predict,
        "columns": tuple(columns) if columns else None,
        "axis": axis,
        "pooled": pooled,
        "untruncated": untruncated,
        "replication": replication,
        "replication_features": replication_features,
        "replication_fresh": replication_fresh,
        "replication_labels": replication_labels,
        "replication_fresh_labels": replication_fresh_labels,
        "replication_responses": replication_responses,
        "replication_fresh_responses": replication_fresh_responses,
        "gates": gates,
        "profile": profile,
        "seed": seed,
    }
    from arcs.falsification.command import start

    flags = {name: value for name, value in given.items() if value is not None}
    start(flags, out=out, run=run, as_json=json_output)
