"""The document for people: sections with marks, tables, loud findings last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

_MARKS = {
    "ok": "[green]ok     [/]",
    "warning": "[yellow]warning[/]",
    "problem": "[bold red]problem[/]",
}
_SECTIONS = {
    "engines": "Engines",
    "gpus": "GPUs",
    "sandbox": "Model-written code",
    "memory": "Memory",
    "disk": "Disk",
    "system": "System",
}


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print the whole report."""
    for section, title in _SECTIONS.items():
        console.print(f"\n[bold]{title}[/]")
        _show_findings(document["findings"], section, console)
        if section == "engines":
            _show_engines(document["engines"], console)
        elif section == "memory":
            console.print(_fits_table(document["memory"]))
        elif section == "system":
            console.print(f"  {_system_line(document['system'])}", soft_wrap=True)
    _show_impossible(document["will_not_work"], console)
    _show_loud(document["findings"], console)
    console.print(f"\n{_verdict(document)}", soft_wrap=True)


def _show_findings(findings: list[dict[str, Any]], section: str, console: Console) -> None:
    for finding in findings:
        if finding["section"] == section:
            console.print(
                f"  {_MARKS[finding['level']]} {escape(finding['message'])}", soft_wrap=True
            )
            if finding["fix"]:
                console.print(
                    f"          -> {escape(finding['fix'])}", style="cyan", soft_wrap=True
                )


def _show_engines(engines: Mapping[str, Any], console: Console) -> None:
    answered = [entry for entry in engines.values() if entry["status"] == "ok"]
    if not answered:
        return
    table = Table(title="dtypes that work; x: time of a product over float32's", title_style="dim")
    for name in ("engine", "version", "device", "float32", "bfloat16", "float16"):
        table.add_column(name)
    for entry in answered:
        version = next((value for value in entry["versions"].values() if value), "?")
        used = ", ".join(device["name"] for device in entry["devices"] if device["used"])
        cells = [_dtype_cell(entry["dtypes"].get(d)) for d in ("float32", "bfloat16", "float16")]
        table.add_row(entry["title"], version, used, *cells)
    console.print(table)
    for entry in answered:
        console.print(f"  {entry['title']}: {escape(_details(entry))}", style="dim", soft_wrap=True)


def _dtype_cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "not tried"
    if entry["reduced"]:
        return "[yellow]as TF32[/]"
    if not entry["works"]:
        return "[red]fails[/]"
    slowdown = entry["slowdown"]
    if slowdown is None or slowdown == 1.0:
        return "works"
    return f"works, {slowdown:.2g}x"


def _details(entry: Mapping[str, Any]) -> str:
    """Build, BLAS, threads, attention and TF32 of one engine, as far as it has them."""
    attention = entry["attention"]
    parts = [f"built for {entry['build']}"]
    if entry["blas"]:
        parts.append(f"BLAS {entry['blas']}")
    if entry["threads"]:
        parts.append(f"{entry['threads']} threads")
    if attention["implementation"]:
        parts.append(f"attention {attention['implementation']}")
    if attention.get("deltanet"):
        parts.append(f"Qwen3.5's DeltaNet by {attention['deltanet']['path']}")
    tf32 = entry["tf32"]
    state = "on" if tf32["in_threearc"] else "off"
    parts.append(f"TF32 {state} in threearc" if tf32["applies"] else "no TF32 on this device")
    return ", ".join(parts)


def _fits_table(memory: Mapping[str, Any]) -> Table:
    notes = memory["assumptions"]
    table = Table(
        title=f"GB needed; inference: {notes['inference']}; training: {notes['training']}",
        title_style="dim",
    )
    table.add_column("model", no_wrap=True)
    for name in ("inference\nfloat32", "\nbfloat16", "training\nfloat32", "\nbfloat16"):
        table.add_column(name, justify="right")
    for model in memory["models"]:
        cells = [_fit_cell(option) for option in model["inference"].values()]
        cells += [_fit_cell(option) for option in model["training"].values()]
        mark = "" if model["basis"] == "prepared files" else " *"
        table.add_row(model["name"] + mark, *cells)
    table.caption = "* from published sizes; c: fits with gradient_checkpointing only; -: does not"
    return table


def _fit_cell(option: Mapping[str, Any]) -> str:
    """As configured where that fits, else the least that is needed."""
    if option["fits"] in (True, "yes"):
        return f"[green]{option['bytes'] / 1e9:.1f}[/]"
    least = f"{option.get('bytes_with_gradient_checkpointing', option['bytes']) / 1e9:.1f}"
    if option["fits"] == "gradient_checkpointing":
        return f"[yellow]{least} c[/]"
    return f"[red]{least} -[/]"


def _system_line(system: Mapping[str, Any]) -> str:
    limits = system["limits"]["open_files"]
    files = "unlimited" if limits["soft"] is None else limits["soft"]
    set_here = [
        f"{key}={value}" for key, value in system["environment"].items() if value is not None
    ]
    return escape(
        f"{system['platform']}; {system['memory_bytes'] / 1e9:.1f} GB memory; open files {files}; "
        f"{' '.join(set_here) or 'no thread settings in the environment'}"
    )


def _show_impossible(rows: list[dict[str, str]], console: Console) -> None:
    if not rows:
        return
    console.print("\n[bold]What will not work here[/]")
    for row in rows:
        console.print(f"  {escape(row['what'])}: {escape(row['why'])}", soft_wrap=True)


def _show_loud(findings: list[dict[str, Any]], console: Console) -> None:
    for finding in findings:
        if finding["loud"]:
            text = f"{escape(finding['message'])}\n\n{escape(finding['fix'] or '')}"
            console.print(Panel(text, title="GPU NOT USED", style="bold red"))


def _verdict(document: Mapping[str, Any]) -> str:
    counts = {
        level: sum(finding["level"] == level for finding in document["findings"])
        for level in ("problem", "warning")
    }
    found = ", ".join(f"{n} {level}{'s' if n != 1 else ''}" for level, n in counts.items())
    if not document["ok"]:
        return f"[bold red]No engine works: no experiment can run here[/] ({found})"
    return f"Experiments can run here ({found}; {document['seconds']:.0f} s)"
