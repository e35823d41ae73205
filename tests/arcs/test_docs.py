"""Every command that README, docs and --help show is one that the command line takes."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from arcs.cli import app
from arcs.cli.settings import MODELS
from models.errors import UserError
from tests.support.command_line import call_here

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "arcs" / "training_data").glob("*.md")),
)
RECIPES = set(re.findall(r"^([a-z][\w-]*)[^\n:=]*:(?!=)", (ROOT / "Justfile").read_text(), re.M))
NOT_THREEARC = {"test", "test-all", "check", "setup"}
"""Recipes that are no command of threearc."""
REAL = (
    "threearc models", "threearc data show", "threearc data stats mcas",
    "threearc data show chef_train --id chef-train-001", "threearc audit --list",
    "threearc data split mcas --fractions 0.6,0.4 --names dev,test --stratify type --out parts",
)  # fmt: skip
"""Executed here: they need no model, no network and no file of the reader's."""


class Shown(NamedTuple):
    """One command as a page shows it."""

    where: str
    argv: tuple[str, ...]
    """After ``threearc``."""
    whole: bool
    """Stands on a line of its own, so it can be typed as it is."""


@pytest.fixture(scope="module")
def root() -> Any:
    call_here("--version")  # registers the commands
    return typer.main.get_command(app)


def test_what_threearc_says_of_a_mistake_stays_the_last_line_under_just() -> None:
    text = (ROOT / "Justfile").read_text()
    recipe = r"^([^\n]*)\n([a-z][\w-]*)[^\n:=]*:[^\n=]*\n    @(?:\"{{threearc}}|sh )"
    named = re.findall(recipe, text, re.M)
    assert RECIPES - {one for _, one in named} == {"default", "test", "test-all", "check"}
    assert {one for before, one in named if before != "[no-exit-message]"} == set()


def name_of(page: Path) -> str:
    """Two of them are a README.md."""
    return page.relative_to(ROOT).as_posix()


def commands_of(page: Path) -> Iterator[Shown]:
    fenced = False
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name_of(page)}, line {number}"
        fenced ^= line.startswith("```")
        code = line.strip() if fenced or line.startswith("    ") else ""
        if code.startswith(("threearc ", "just ", "$ threearc ", "$ just ")):
            yield from shown(where, code.removeprefix("$ "), whole=True)
        elif not code:
            for span in re.findall(r"`((?:threearc|just) [^`]+)`", line):
                yield from shown(where, span, whole=False)


def shown(where: str, code: str, *, whole: bool) -> Iterator[Shown]:
    # in prose a command is often cut: `threearc judge validate --judge ...`
    own = re.split(r"…|\.\.\.| [>|<] ", code, maxsplit=1)[0]
    program, *rest = shlex.split(own, comments=True)
    if program == "just" and rest:
        assert rest[0] in RECIPES or not whole, f"{where}: no recipe called {rest[0]}"
    if rest and not (program == "just" and rest[0] in NOT_THREEARC):
        yield Shown(where, tuple(rest), whole)


SHOWN = [one for page in PAGES for one in commands_of(page)]


def find(root: Any, argv: tuple[str, ...]) -> tuple[Any, list[str], list[str]]:
    """The command, its path and what is left of ``argv``."""
    command, path, rest = root, [], list(argv)
    if rest[:1] == ["eval"] and rest[1:2] and rest[1] in ("chef", "mcas", "recovery", "meter",
                                                          "short-answers", "delivery"):  # fmt: skip
        rest[0] = "measure"  # the same, as docs/measure.md says
    while rest and rest[0] in getattr(command, "commands", {}):
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    return command, path, rest


def require_parsed(root: Any, argv: tuple[str, ...]) -> None:
    """Raises what the command line raises for ``argv``, up to a run's settings; does no work."""
    command, path, rest = find(root, argv)
    of_root = {flag for one in root.params for flag in one.opts}
    if "--help" in rest or (not path and rest[0] in of_root):
        return
    assert not hasattr(command, "commands") or command.invoke_without_command or not rest, (
        f"{' '.join(argv)}: no such command"
    )
    if path == ["init"]:  # done, so that the file is there for what the page shows next
        done = call_here(*argv)
        assert done.returncode == 0, done.stderr
        return
    seen: list[dict[str, Any]] = []
    name = " ".join(path)
    with pytest.MonkeyPatch.context() as patch:
        if name in MODELS:
            module = importlib.import_module(MODELS[name][0])
            work = importlib.import_module(MODELS[name][0].replace(".config", ".command"))
            patch.setattr(work, "start", lambda flags, **_: seen.append(dict(flags)))
        with command.make_context(name, rest) as context:
            if name in MODELS:
                command.invoke(context)
    if name in MODELS and "--run" not in argv and seen and (seen[0] or name != "falsify"):
        resolve = getattr(module, "resolve", module.parse)
        resolve(seen[0])


def test_pages_show_commands_at_all() -> None:
    whole = [one for one in SHOWN if one.whole]
    assert len(whole) > 100
    assert len({one.where.split(",")[0] for one in whole}) > 15


def test_the_readme_leads_to_every_page_and_its_links_to_something() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}
    assert {name_of(page) for page in PAGES[1:]} <= links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_is_taken_by_the_command_line(
    page: Path, root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for one in SHOWN:
        if not one.where.startswith(f"{name_of(page)},") or not one.whole:
            continue
        try:
            require_parsed(root, one.argv)
        except (UserError, typer.Exit, typer.BadParameter, AssertionError) as error:
            wrong.append(f"{one.where}: {shlex.join(one.argv)}: {error}")
        except Exception as error:  # usage errors, whose class differs between versions of typer
            if not hasattr(error, "format_message"):
                raise
            wrong.append(f"{one.where}: {shlex.join(one.argv)}: {error.format_message()}")
    assert not wrong, "\n".join(wrong)


def test_every_command_and_flag_in_prose_exists(root: Any) -> None:
    wrong = []
    for one in SHOWN:
        command, path, rest = find(root, one.argv)
        flags = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        named = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help", "--"}
        if not path and one.argv[0] not in ("--help", "--version", *flags):
            wrong.append(f"{one.where}: threearc {shlex.join(one.argv)}: no such command")
        wrong += [f"{one.where}: threearc {' '.join(path)} has no {x}" for x in named - flags]
    assert not wrong, "\n".join(wrong)


def test_every_example_of_help_is_taken_by_the_command_line(
    root: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples, waiting = [], [root]
    while waiting:
        command = waiting.pop()
        waiting += list(getattr(command, "commands", {}).values())
        said = re.sub(r"\n\s+--", " --", command.epilog or "")  # a line that goes on
        for line in re.findall(r"threearc [^\n;]+", said):
            examples.append(re.split(r"\s{2,}\(|\\n", line)[0])
    assert len(examples) > 60
    for line in examples:
        try:
            require_parsed(root, tuple(shlex.split(line)[1:]))
        except Exception as error:
            said = error.format_message() if hasattr(error, "format_message") else str(error)
            pytest.fail(f"{line}: {said}")


def test_the_memory_table_of_the_readme_is_the_estimators(monkeypatch: pytest.MonkeyPatch) -> None:
    from arcs.doctor import fits

    monkeypatch.setattr(fits, "_prepared_directories", dict)  # shapes, not what is on this disk
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {row[0].split()[0]: row[1:] for row in
            ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
            if len(row) == 6}  # fmt: skip
    base = 134_515_008
    for model in fits.describe_fits(0, "memory")["models"]:
        use, train = model["inference"], model["training"]
        least = {d: train[d]["bytes_with_gradient_checkpointing"] for d in train}
        expected = [
            f"{use['bfloat16']['bytes'] / 2**30:.1f}", f"{use['float32']['bytes'] / 2**30:.1f}",
            *(f"{least[d] / 2**30:.1f} to {train[d]['bytes'] / 2**30:.1f}"
              for d in ("bfloat16", "float32")),
        ]  # fmt: skip
        *found, time = rows[model["name"]]
        assert found == expected, model["name"]
        if "times" in time:
            times = float(time.split()[0])
            assert times == pytest.approx(model["parameters"] / base, rel=0.05), model["name"]


def test_a_flag_that_does_not_exist_would_be_found(root: Any) -> None:
    with pytest.raises(Exception, match="--nonesuch"):
        require_parsed(root, ("arc1", "--nonesuch", "4"))
    with pytest.raises(UserError, match="sft does not use it"):
        require_parsed(root, ("arc1", "--method", "sft", "--beta", "0.2"))
    with pytest.raises(AssertionError, match="no such command"):
        require_parsed(root, ("data", "nonesuch"))


@pytest.mark.parametrize("line", REAL)
def test_what_needs_nothing_is_executed(line: str, tmp_path: Path) -> None:
    argv = tuple(shlex.split(line)[1:])
    assert any(one.whole and one.argv == argv for one in SHOWN), f"no page shows {line}"
    done = call_here(*argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
