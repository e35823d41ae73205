"""``--config``, ``threearc init`` and completion: one definition of every option, many uses."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from arcs.cli import app, main
from arcs.cli.config_file import read, settings_of
from arcs.cli.settings import MODELS, choices_of, fields_of
from arcs.cli.template import configurable, template
from models.errors import UserError
from tests.support.command_line import call_here

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = {
    "adapters show", "capsule", "data show", "doctor", "init", "models", "runs diff", "runs list",
    "runs rm", "runs show", "sweep",
}  # fmt: skip
"""Commands with nothing to keep in a settings file; sweep has a file of its own."""
NEEDED: dict[str, dict[str, Any]] = {
    "measure": {"instrument": "meter"},
    "falsify": {"source": Path("/a/run")},
    "paper": {"model": "qwen3-0.6b"},
}
"""What a command cannot do without, which therefore has no default."""


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    call_here("--version")  # registers the commands
    return configurable(typer.main.get_command(app))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Call ``threearc ARGV`` up to its work; returns the settings that the work is given."""
    monkeypatch.chdir(tmp_path)

    def ask(*argv: object) -> dict[str, Any]:
        seen: list[dict[str, Any]] = []
        with monkeypatch.context() as patch:
            for name in MODELS:
                where = MODELS[name][0].replace(".config", ".command")
                patch.setattr(f"{where}.start", lambda flags, **_: seen.append(dict(flags)))
            with pytest.raises(SystemExit) as end:
                main([str(one) for one in argv])
        assert not end.value.code
        return seen[0]

    return ask


def resolved(name: str, flags: dict[str, Any]) -> Any:
    module = importlib.import_module(MODELS[name][0])
    return getattr(module, "resolve", module.parse)({**NEEDED.get(name, {}), **flags})


def mistake(*argv: object, cwd: Path) -> str:
    done = call_here(*argv, cwd=cwd)
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_file_of_init_means_the_defaults_with_and_without_its_lines(
    name: str, commands: dict[str, Any], asked: Any, tmp_path: Path
) -> None:
    text = template(name, commands[name])
    (tmp_path / "as-written.toml").write_text(text)
    assert tomllib.loads(text) == {}
    assert asked(*name.split(), "--config", "as-written.toml") == {}
    keys = re.findall(r"^#(\w+) = ", text, re.M)
    assert keys == sorted(settings_of(commands[name]), key=keys.index) and len(set(keys)) == len(
        keys
    )
    set_lines = re.sub(r"^#(\w+ = (?! ))", r"\1", text, flags=re.M)
    (tmp_path / "all.toml").write_text(set_lines)
    given = asked(*name.split(), "--config", "all.toml")
    assert len(given) > 2  # the lines did reach the command
    assert resolved(name, given) == resolved(name, {})


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_setting_of_a_run_has_an_option(name: str, commands: dict[str, Any]) -> None:
    assert fields_of(name).keys() <= settings_of(commands[name]).keys()


def test_all_commands_read_a_file_but_those_that_the_page_names(commands: dict[str, Any]) -> None:
    leaves = dict(leaves_of(typer.main.get_command(app)))
    assert leaves.keys() - commands.keys() == WITHOUT
    page = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
    assert [name for name in WITHOUT if f"`{name}`" not in page] == []


def leaves_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from leaves_of(one, (*path, name))
    if path and getattr(command, "invoke_without_command", True):  # a group needs a command
        yield " ".join(path), command


def parsed(name: str, command: Any, *argv: str) -> Any:
    """The context in which the command's work would be called."""
    parent, words = None, ["threearc", *name.split()]
    for word in words[:-1]:
        parent = command.context_class(command, info_name=word, parent=parent)
    return command.make_context(words[-1], list(argv), parent=parent)


def required(command: Any) -> list[str]:
    """Words for what the command cannot do without."""
    found = []
    for one in command.params:
        if one.required:
            found += [flag for flag in one.opts[:1] if flag.startswith("-")] + ["x"]
    return found


def test_the_file_of_init_read_back_changes_nothing_for_any_command(
    commands: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in commands.items():
        text, needed = template(name, command), required(command)
        plain = parsed(name, command, *needed)
        Path("as-written.toml").write_text(text)
        assert tomllib.loads(text) == {}
        assert "No description." not in text, name
        found = parsed(name, command, *needed, "--config", "as-written.toml")
        assert found.params | {"config": None} == plain.params, name
        if name in MODELS:  # where the model has the defaults: see above
            continue
        set_lines, count = re.subn(r"^#(\w+ = (?! ))", r"\1", text, flags=re.M)
        Path("all.toml").write_text(set_lines)
        found = parsed(name, command, *needed, "--config", "all.toml")
        assert found.params | {"config": None} == plain.params, name
        assert sum(found.get_parameter_source(key).name == "DEFAULT_MAP"
                   for key in found.params) == count, name  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "argv", "wanted"),
    [
        ("settle", 'run = "a"\nmax_items = 3\ndata = ["small"]', (),
         {"run": Path("a"), "max_items": 3, "data": ["small"]}),
        ("settle", 'run = "a"\nmax_items = 3', ("b", "--max-items", "4"),
         {"run": Path("b"), "max_items": 4}),
        ("report", 'run = ["a", "b"]\nformat = "csv"\njson = true', ("--no-json",),
         {"run": [Path("a"), Path("b")], "form": "csv", "json_output": False}),
        ("report", 'run = ["a", "b"]', ("c",), {"run": [Path("c")]}),
        ("data mix", 'names = ["a:1", "b"]\nout = "m"\nseed = 7', (),
         {"names": ["a:1", "b"], "out": Path("m"), "seed": 7}),
        ("data import csv", 'path = "q.csv"\nas = "prompt"\nout = "o"\nmap = "prompt=q"', (),
         {"path": Path("q.csv"), "kind": "prompt", "mapped": "prompt=q"}),
        ("sidecar answer", 'sidecar = "s"\nquestion = "q"', (), {"sidecar": Path("s")}),
        ("models export", "tokenizer = false", ("m", "--out", "o"), {"tokenizer": False}),
    ],
)  # fmt: skip
def test_arguments_and_what_is_required_may_stand_in_the_file(
    name: str, content: str, argv: tuple[str, ...], wanted: dict[str, Any],
    commands: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "s.toml").write_text(content)
    found = parsed(name, commands[name], *argv, "--config", str(tmp_path / "s.toml"))
    assert {key: found.params[key] for key in wanted} == wanted


def test_flags_win_over_the_file_and_the_file_over_the_profile(asked: Any, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        'rank = 4\nprofile = "quick"\nlearning-rate = 1\nlimit = 7\nn_predict = [16, 32]\n'
        'data = ["a.jsonl"]\nthinking = false\nevaluations = []\n'
    )
    config = resolved("arc1", asked("arc1", "--config", "s.toml", "--rank", "8"))
    assert (config.rank, config.profile, config.learning_rate, config.limit) == (8, "quick", 1.0, 7)
    assert config.n_predict == (16, 32) and config.evaluations == ()
    (tmp_path / "s.toml").write_text('adapter = ["a", "b"]\nquant = ["f16", "q8_0"]\nstop = "\\n"')
    config = resolved("eval", asked("eval", "small", "--config", "s.toml", "--adapter", "c"))
    assert config.adapters == (Path("c"),) and config.quantisations == ("f16", "q8_0")
    assert config.stops == ("\n",) and config.benchmark == "small"
    (tmp_path / "s.toml").write_text('instrument = "short-answers"\nn_predict = 24\n')
    config = resolved("measure", asked("measure", "--config", "s.toml"))
    assert (config.instrument, config.n_predict) == ("short-answers", (24,))


def test_what_the_file_switches_on_a_flag_switches_off(
    commands: dict[str, Any], asked: Any, tmp_path: Path
) -> None:
    for name, command in commands.items():
        for one in settings_of(command).values():
            if one.kind is bool:
                assert f"--no-{one.key.replace('_', '-')}" in one.parameter.secondary_opts, name
    (tmp_path / "s.toml").write_text("allow_weak_sandbox = true\nplanted = true\n")
    assert resolved("arc1", asked("arc1", "--config", "s.toml")).allow_weak_sandbox
    config = resolved("arc1", asked("arc1", "--config", "s.toml", "--no-allow-weak-sandbox"))
    assert config.planted and not config.allow_weak_sandbox


FILES = [
    ("arc1", "rnak = 4", "s.toml: rnak: threearc arc1 has no such option; did you mean rank?"),
    ("arc3", "zzzz = 4", "zzzz: threearc arc3 has no such option; threearc init arc3 lists"),
    ("arc1", 'rank = "4"', "rank: give a whole number, not '4'"),
    ("arc1", "rank = 4.5", "rank: give a whole number, not 4.5"),
    ("arc1", "rank = true", "rank: give a whole number, not True"),
    ("arc1", 'profile = ["quick"]', "profile: give text in quotes, not ['quick']"),
    ("arc1", "data = []", "data: give at least one, or leave it out, not []"),
    ("arc1", "rank = [4]", "rank: give a whole number, not [4]"),
    ("arc1", 'alpha = "x"', "alpha: give a number, not 'x'"),
    ("arc2", 'allow_weak_sandbox = "no"', "allow_weak_sandbox: give true or false, not 'no'"),
    ("eval", "model = true", "model: give text in quotes, not True"),
    ("eval", "adapter = [[1]]", "adapter: give text in quotes"),
    ("arc1", "[arc1]\nrank = 4", "arc1: a table; options stand at the top of the file"),
    ("arc1", "learning-rate = 1\nlearning_rate = 2", "learning_rate stands there twice"),
    ("arc1", 'run = "runs/a"', "run: give it as a flag, --run"),
    ("settle", "dry_run = true", "dry_run: give it as a flag, --dry-run"),
    ("judge validate", 'run = "a"', "run: threearc judge validate has no such option"),
    ("data mix", "sed = 4", "threearc data mix has no such option; did you mean seed?"),
    ("arc1", "rank = ", "s.toml: not TOML (Invalid value (at line 1"),
]
VALUES = [
    ("arc1", "rank = 0", "error: s.toml: --rank: Input should be greater than or equal to 1"),
    ("arc3", 'position = "last"', "error: s.toml: --position 'last': give last_content"),
    ("eval", "n_predict = [5, 5]", "error: s.toml: each n_predict must be given once"),
    ("measure", 'instrument = "meters"', "error: s.toml: INSTRUMENT 'meters': give meter"),
    ("bench", "prompts = 0", "error: --config s.toml: prompts: "),
    ("bench", 'work = "eval"\nrows = 9', "error: s.toml: --rows means nothing to bench eval"),
    ("paper", 'model = "qwen3-0.6b"\nonly = ["arc9"]', "error: s.toml: --only arc9: choose from"),
    ("bench", 'engine = "x"', "error: s.toml: --engine x: choose one of"),
]


@pytest.mark.parametrize(("command", "content", "complaint"), FILES)
def test_what_a_file_cannot_say_is_refused(
    command: str, content: str, complaint: str, commands: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text(content + "\n")
    with pytest.raises(UserError) as refused:
        read(tmp_path / "s.toml", commands[command], command)
    assert complaint in str(refused.value) and str(refused.value).startswith("--config ")


@pytest.mark.parametrize(("command", "content", "complaint"), [FILES[0], *VALUES])
def test_mistakes_in_a_file_are_one_line(
    command: str, content: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text(content + "\n")
    assert complaint in mistake(command, "--config", "s.toml", cwd=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_mistake_of_a_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("limit = 10\n")
    line = mistake("arc3", "--config", "s.toml", "--limit", "1", cwd=tmp_path)
    assert line.startswith("error: --limit")
    assert mistake("arc3", "--limit", "1", cwd=tmp_path) == line  # nor is an earlier file
    assert "nix.toml: no such file" in mistake("arc3", "--config", "nix.toml", cwd=tmp_path)


@pytest.mark.parametrize("name", ["arc3", "eval"])
def test_what_the_file_settled_is_saved_in_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = MODELS[name][0].replace(".config", ".command")
    monkeypatch.setattr(f"{where}._go", lambda *_, **__: None)
    (tmp_path / "s.toml").write_text('limit = 12\nn_predict = 33\nout = "r"\n')
    assert call_here(name, "--config", "s.toml", "--limit", "11", cwd=tmp_path).returncode == 0
    saved = json.loads((tmp_path / "r" / "manifest.json").read_text())["config"]
    assert saved["limit"] == 11 and saved["n_predict"] in (33, [33])
    # the same file continues it; another is a mistake that names what differs
    again = (name, "--run", "r", "--limit", "11")
    (tmp_path / "t.toml").write_text("n_predict = 44\n")
    assert "--n-predict is 33 in this run, not 44" in mistake(
        *again, "--config", "t.toml", cwd=tmp_path
    )
    (tmp_path / "t.toml").write_text("n_predict = 33\n")
    assert call_here(*again, "--config", "t.toml", cwd=tmp_path).returncode == 0


def test_init_writes_once_and_says_what_next(tmp_path: Path) -> None:
    done = call_here("init", cwd=tmp_path)
    assert done.returncode == 0 and "threearc arc1 --config threearc.toml" in done.stdout
    (tmp_path / "threearc.toml").write_text("rank = 4\n")
    assert "threearc.toml: already there" in mistake("init", cwd=tmp_path)
    assert (tmp_path / "threearc.toml").read_text() == "rank = 4\n"
    assert "choose one of" in mistake("init", "arc9", cwd=tmp_path)
    done = call_here("init", "data", "mix", "--out", "mix.toml", cwd=tmp_path)
    assert done.returncode == 0 and "threearc data mix --config mix.toml" in done.stdout
    (tmp_path / "file").touch()
    assert "--out file/a.toml" in mistake("init", "--out", "file/a.toml", cwd=tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("threearc arc1 --profile ", {"quick", "standard", "paper"}),
        ("threearc arc1 --model SmolLM2-1.7", {"SmolLM2-1.7B-Instruct"}),
        ("threearc arc2 --backend ", {"auto", "torch", "mlx"}),
        ("threearc arc3 --backend ", {"auto", "torch", "mlx", "gguf"}),
        ("threearc eval --quant q8_0,q4", {"q8_0,q4_k_m"}),
        ("threearc measure ", {"meter", "short-answers", "chef", "mcas", "recovery", "delivery"}),
        ("threearc arc1 --recipe planted", {"planted-hedge"}),
        ("threearc init ben", {"bench"}),
        ("threearc init sidecar ", {"fit", "answer"}),
    ],
)
def test_a_shell_is_told_what_could_follow(line: str, expected: set[str]) -> None:
    done = call_here(_THREEARC_COMPLETE="complete_bash", COMP_WORDS=line,
                     COMP_CWORD=str(line.count(" ")))  # fmt: skip
    assert set(done.stdout.split()) == expected


def test_choices_are_the_models_own() -> None:
    assert choices_of("arc2", "controls") == ("all", "strongest")
    assert choices_of("arc1", "rank") == () == choices_of("no such command", "profile")
