"""The report: what it shows of each kind of run, and that texts stay texts."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcs.cli import main
from arcs.estimates import Estimate, judge_claim
from arcs.report import command, generic
from arcs.report.charts import axis, chart
from arcs.report.compare import compared
from arcs.report.formats import harmless, to_csv, to_json, to_markdown
from arcs.report.kinds import view_of
from arcs.report.page import TEMPLATES, items_json, link, page, utf16
from arcs.report.view import (
    HIDDEN,
    Answer,
    Block,
    Cell,
    Chart,
    Item,
    Number,
    Plot,
    Point,
    Row,
    Series,
    State,
    Table,
    View,
    spelt,
)
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory
from evals.items.load import built_in
from evals.items.records import ShortAnswer
from evals.judges.labels import JudgeId, Label
from evals.statistics import Interval
from models.errors import UserError
from tests.support.hostile_view import hostile_view
from tests.support.report_links import check_counts, selected
from tests.support.stored_runs import HOSTILE, answer, arc1_run, problems, short_answers_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight problems: one gained, one lost, one whose answer 64 tokens cut, hostile texts."""
    chosen = problems(8)
    base = [answer(one, passes=i in (0, 1, 2)) for i, one in enumerate(chosen)]
    trained = [
        answer(one, passes=i in (1, 2, 3), before=HOSTILE[i % 4], ids=100 if i == 2 else 40)
        for i, one in enumerate(chosen)
    ]
    return arc1_run(tmp_path_factory.mktemp("report") / "arc1-x", base, trained)


def test_every_number_of_arc1_leads_to_the_items_it_counts(run: Path) -> None:
    view = view_of(run)
    assert check_counts(view) >= 15
    metrics = json.loads((run / METRICS).read_text())
    first = view.claims[0]
    assert first.verdict == metrics["claim"]["verdict"]
    assert first.select is not None and first.number is not None
    changed = {item for item, _ in selected(view, first.select)}
    assert changed == {"HumanEval/0", "HumanEval/3"}
    assert first.number.n == 8


def test_an_answer_says_where_each_budget_ended(run: Path) -> None:
    item = view_of(run).items[2]
    base, trained = item.answers
    assert base.marks == ()
    ((place, what),) = trained.marks
    assert what == "n_predict 64 ended here" and trained.text is not None
    assert place == len(trained.text) * 64 // 100
    small, large = trained.states
    assert small.facets["cut"] == "unfinished" and small.facets["change"] == "lost"
    assert large.facets["cut"] == "finished" and large.facets["change"] == "both pass"


def test_a_program_is_shown_only_where_its_hash_proves_it(run: Path, tmp_path: Path) -> None:
    item = view_of(run).items[0]
    code = [b for b in item.answers[0].states[1].blocks if b.kind == "code"]
    assert code and problems(1)[0].canonical_solution in code[0].text
    forged = tmp_path / "forged"
    forged.mkdir()
    for name in ("manifest.json", METRICS):
        (forged / name).write_text((run / name).read_text())
    lines = [json.loads(line) for line in (run / "items.jsonl").read_text().split("\n")[:-1]]
    for line in lines:
        line["text"] = line["text"].replace("def ", "def  ")
    (forged / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    states = [s for i in view_of(forged).items for a in i.answers for s in a.states]
    assert not [b for s in states for b in s.blocks if b.kind == "code"]


def test_prompts_of_a_changed_benchmark_are_not_shown(run: Path, tmp_path: Path) -> None:
    chosen = problems(2)
    given_answers = [answer(one, passes=True) for one in chosen]
    other = arc1_run(tmp_path / "r", given_answers, given_answers,
                     evaluation={"dataset": "HumanEval", "quantisation": "q8_0",
                                 "dataset_sha256": "1" * 64})  # fmt: skip
    view = view_of(other)
    assert all(item.prompt is None and not item.blocks for item in view.items)
    assert any("has changed since the run" in note for note in view.notes)
    assert all(item.prompt for item in view_of(run).items)


def test_every_number_of_short_answers_leads_to_the_questions_it_counts(tmp_path: Path) -> None:
    items = built_in("short_answers", ShortAnswer)[:6]
    right = [item.answers[0] for item in items]
    said = {"base": [*right[:3], "", "zzz", "zzz"], "edit": [right[0], "zzz", *right[2:5], "zzz"]}
    view = view_of(short_answers_run(tmp_path / "short", said))
    assert check_counts(view) >= 8
    (card,) = view.claims
    assert card.select is not None
    changes = [state.facets["change"] for _, state in selected(view, card.select)]
    assert sorted(changes) == ["gained", "gained", "lost"]
    both = selected(view, {"condition": "edit", "change": "both right"})
    assert [item for item, _ in both] == [items[0].id, items[2].id]
    assert [item.prompt for item in view.items] == [item.prompt for item in items]


def test_what_a_judge_said_stands_at_the_answer_it_was_said_of(tmp_path: Path) -> None:
    judge = JudgeId("api", "a judge", "http://localhost")

    def label(question: str, status: Any, value: Any, **more: Any) -> dict[str, Any]:
        return Label(question, "coverage", judge, "p", "t", status, value, **more).to_json()

    path = short_answers_run(tmp_path / "free", {"base": ["x"]})  # its files, with others put in
    metrics = json.loads((path / METRICS).read_text())
    metrics["instrument"] = "another"
    metrics["made_with"]["measurement"] = {"n_predict": [4, 8]}
    (path / METRICS).write_text(json.dumps(metrics))
    rows = [
        {"item_id": "i1", "ids": [1] * 6, "finish_reason": "stop", "text": "six ids"},
        {"item_id": "i2", "ids": [1] * 8, "finish_reason": "length", "text": "cut at eight"},
        {"item_id": "i3", "ids": [1] * 3, "finish_reason": "stop", "text": "short"},
    ]
    labels = [
        label("base/i1@8#1", "error", None, detail="time-out"),
        label("base/i1@8#1", "ok", "YES", detail="as it says", cut_characters=1200),
        label("base/i1@8#2", "unparsed", None, detail="<b>well</b>"),
        label("base/i3@4", "ok", "NO", probability=0.75),
    ]
    for name, found in (("base.jsonl", rows), ("base.labels.jsonl", labels)):
        (path / name).write_text("".join(json.dumps(one) + "\n" for one in found))
    one, two, three = view_of(path).items
    small, large = one.answers[0].states
    assert small.facets == {"n_predict": "4", "outcome": "cut"} and not small.blocks
    assert large.facets["label"] == ("coverage=YES", "coverage=unparsed")
    assert [block.text for block in large.blocks] == [
        "YES\nas it says\n1,200 characters of the answer were not shown to it",
        "no label: unparsed\n<b>well</b>",
    ]
    assert large.blocks[0].title.endswith("on coverage#1")
    assert [state.facets["outcome"] for state in two.answers[0].states] == ["cut", "cut"]
    assert two.answers[0].marks == ((12, "n_predict 8 ended here"),)
    assert [state.facets["label"] for state in three.answers[0].states] == [("coverage=NO",)] * 2


# -- texts stay texts -----------------------------------------------------------------------------


class Elements(html.parser.HTMLParser):
    """Tags, attributes and the content of scripts, as a browser would split them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


PLAIN = Elements(page(hostile_view("plain")))


@settings(max_examples=25, deadline=None)
@example(text=HOSTILE[0])
@example(text=HOSTILE[1])
@example(text=HOSTILE[2])
@example(text=HOSTILE[3])
@example(text="\ud800")
@example(text='" autofocus onfocus=alert(1) x="')
@given(text=st.text(min_size=1, max_size=30))
def test_whatever_a_model_says_adds_no_markup(text: str) -> None:
    shown = page(hostile_view(text))
    found = Elements(shown)
    assert found.tags == PLAIN.tags and not found.handlers
    assert "</script" not in found.scripts[0]
    data = json.loads(found.scripts[0])
    assert text in data["texts"]  # and nothing of it is lost
    assert data["items"][0]["id"] == text
    assert not HIDDEN.search(shown)


def test_the_script_spells_out_what_the_template_does() -> None:
    script = (TEMPLATES / "page.js").read_text()
    (shown,) = re.findall(r"const HIDDEN = /(.*)/gu;", script)
    assert re.sub(r"\\u\{(\w+)\}", lambda found: rf"\U{found[1]:0>8}", shown) == HIDDEN.pattern
    assert spelt("a\u202eb\n\U000e0041") == "aU+202Eb\nU+E0041"


def test_the_page_runs_its_own_script_only_and_asks_for_nothing() -> None:
    shown = page(hostile_view("x"))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', shown)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    assert "unsafe-inline'; script-src 'sha256-" in policy[1]
    assert not re.search(r'(?:src|href)="(?!#|data:)', shown)
    assert "innerHTML" not in shown and "http://" not in shown.replace("http://www.w3.org", "")


@given(text=st.text(), place=st.integers(0, 40))
def test_places_in_a_text_are_those_of_the_script(text: str, place: int) -> None:
    place = min(place, len(text))
    units = text.encode("utf-16-le", "surrogatepass")
    assert units[: 2 * utf16(text, place)].decode("utf-16-le", "surrogatepass") == text[:place]


def test_a_text_that_occurs_often_is_stored_once() -> None:
    state = State({"outcome": "wrong"}, (Block("program", "print(1)\n" * 50, "code"),) * 9)
    items = [Item(f"i{i}", "the same", (Answer("base", "so", (state,)),)) for i in range(5)]
    assert len(json.loads(items_json(items))["texts"]) == 3


# -- figures and addresses ------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=5),
    width=st.floats(0, 1e5),
)
@example(values=[0.0], width=0.0)
@example(values=[5e-324], width=0.0)
@example(values=[1e6], width=1e-7)
def test_everything_of_a_plot_lies_within_it(values: list[float], width: float) -> None:
    rows = tuple(
        (str(i), Number(v, "number", v - width, v + width, 0.95), None)
        for i, v in enumerate(values)
    )
    drawn = axis(Plot("p", rows, null=0.0))
    for row in drawn["rows"]:
        low, high = row["ends"]
        assert 0 <= low <= row["at"] <= high <= 100
    assert 0 <= drawn["null"] <= 100
    assert 1 <= len(drawn["ticks"]) <= 12
    assert all(-1e-6 <= place <= 100 + 1e-6 for place, _ in drawn["ticks"])


@given(
    values=st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=5),
    width=st.floats(0, 1e5),
)
@example(values=[0.0], width=0.0)
def test_everything_of_a_chart_lies_within_it(values: list[float], width: float) -> None:
    points = tuple(
        Point(float(i), Number(v, "number", v - width, v + width, 0.95))
        for i, v in enumerate(values)
    )
    drawn = chart(Chart("c", "c", "x", "y", (Series("s", points),), (("l", 0.0),), (-1.0, 1.0)))
    for point in drawn["series"][0]["points"]:
        low, high = point["ends"]
        assert 0 <= high <= point["y"] <= low <= 100  # the larger, the nearer the top
        assert 0 <= point["x"] <= 100
    assert 0 <= drawn["levels"][0]["y"] <= 100 and drawn["band"][0] <= drawn["band"][1]


def test_both_ends_of_a_unit_square_are_ticks() -> None:
    curve = (Point(0.0, Number(0.0)), Point(0.3, Number(1.0)), Point(1.0, Number(1.0)))
    drawn = chart(Chart("roc", "ROC", "x", "y", (Series("s", curve, "line"),), square=True))
    assert drawn["x_ticks"][0] == (0.0, "0") and drawn["x_ticks"][-1] == (100.0, "1")
    assert [(one["x"], one["y"]) for one in drawn["series"][0]["points"]] == [
        (0.0, 100.0), (30.0, 0.0), (100.0, 0.0),
    ]  # fmt: skip
    mixed = (Point(0.0, Number(0.0)), Point(1.0, Number(1.0, "share")))
    with pytest.raises(ValueError, match="on one axis"):
        Chart("c", "c", "x", "y", (Series("s", mixed),))


def test_an_address_keeps_what_it_selects() -> None:
    from urllib.parse import parse_qsl

    select = {"condition": "L1H2=0,L3H1=0.5 & more", "outcome": ("a+b", "c d")}
    query = link(select).removeprefix("#items?")
    assert parse_qsl(query) == [("condition", select["condition"]), ("outcome", "a+b"),
                                ("outcome", "c d")]  # fmt: skip


# -- any kind of run ------------------------------------------------------------------------------


def unknown_run(path: Path, metrics: dict[str, Any] | None) -> Path:
    with RunDirectory.create(path, {"arc": "arc9", "config": {"model": "m", "seed": 3}}) as run:
        if metrics is not None:
            run.write_json(METRICS, metrics)
    return path


def test_a_kind_that_nobody_shows_still_has_its_verdicts_and_numbers(tmp_path: Path) -> None:
    estimate = Estimate("AUC", 0.7, Interval(0.6, 0.8, 0.95), "DeLong", 40, 0.5)
    claim = judge_claim("the axis is read", estimate, 0.05).to_json()
    run = unknown_run(tmp_path / "arc9-a", {"axes": {"hedging": {"claim": claim}}, "layer": 7})
    (run / "figures").mkdir()
    (run / "figures" / "auc_by_layer.svg").write_text("<svg><script>1</script></svg>")
    view = view_of(run)
    (card,) = view.claims
    assert (card.verdict, card.about) == ("SUPPORTED", "axes / hedging")
    assert card.number == Number(0.7, "number", 0.6, 0.8, 0.95, 40)
    (table,) = view.tables
    assert [(row.label, row.cells[0].number) for row in table.rows] == [
        ("axes / hedging / claim / estimate", card.number)
    ]
    shown = write_report(run).read_text()
    assert "<script>1" not in shown and 'src="data:image/svg+xml;base64,' in shown
    assert "auc by layer" in shown and "layer" in shown


def test_metrics_of_another_schema_are_shown_as_they_are(run: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "manifest.json").write_text((run / "manifest.json").read_text())
    metrics = {**json.loads((run / METRICS).read_text()), "schema_version": "threearc-arc1-0"}
    del metrics["budgets"]
    (old / METRICS).write_text(json.dumps(metrics))
    view = view_of(old)
    assert view.claims[0].statement == metrics["claim"]["statement"]
    assert [table.name for table in view.tables] == ["numbers"] and not view.items
    assert "has schema threearc-arc1-0, not threearc-arc1-2" in view.notes[0]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    view = view_of(unknown_run(tmp_path / "arc9-b", None))
    assert not view.finished and "not finished" in view.notes[0]
    assert "No result yet." in page(view)


def test_an_object_with_a_claim_speaks_by_it(run: Path) -> None:
    metrics = json.loads((run / METRICS).read_text())
    assert len(list(generic.claims_in(metrics, main_only=True))) == 1
    assert len(list(generic.claims_in(metrics))) == 3


# -- several runs, other formats ------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, View]:
    chosen = problems(8)
    base = [answer(one, passes=i in (0, 1, 2)) for i, one in enumerate(chosen)]
    trained = [answer(one, passes=True) for one in chosen]
    other = arc1_run(tmp_path_factory.mktemp("report") / "arc1-y", base, trained,
                     config={"seed": 5})  # fmt: skip
    return {"arc1-x": view_of(run), "arc1-y": view_of(other)}


def test_runs_are_compared_number_by_number_and_answer_by_answer(two: dict[str, View]) -> None:
    both = compared(two)
    assert check_counts(both) >= 25  # the links lead to the right run's items
    made = next(table for table in both.tables if table.name == "made with")
    seeds = next(row for row in made.rows if row.label == "settings.seed")
    assert [cell.text for cell in seeds.cells] == ["0", "5"]
    rates = next(table for table in both.tables if table.name == "pass@1")
    row = next(row for row in rates.rows if row.label == "n_predict 128: trained")
    assert [cell.number and cell.number.value for cell in row.cells] == [3 / 8, 1.0]
    verdicts = next(table for table in both.tables if table.name == "verdicts")
    assert [[cell.text for cell in row.cells] for row in verdicts.rows] == [
        [view.claims[0].verdict for view in two.values()]
    ]  # at the smaller budget all is the same
    assert [card.minor for card in both.claims] == [False, False, True, True]
    names = [answer.condition for answer in both.items[0].answers]
    assert names == ["arc1-x: base", "arc1-x: trained", "arc1-y: base", "arc1-y: trained"]
    assert len(both.items) == 8


def test_an_id_with_another_prompt_is_another_item() -> None:
    def view(prompt: str) -> View:
        item = Item("q1", prompt, (Answer("base", "a", (State({}),)),))
        return View("t", "k", "s", True, items=(item,))

    both = compared({"one": view("2 + 2?"), "two": view("3 + 3?")})
    assert [item.id for item in both.items] == ["q1 (one)", "q1 (two)"]


def test_runs_of_several_kinds_stand_in_the_tables_that_they_have() -> None:
    def view(name: str, value: float) -> View:
        rows = (Row("r", (Cell("x", number=Number(value)),)),)
        curve = Series("own", (Point(0.0, Number(value), {"outcome": "right"}),))
        charts = (Chart("roc", "ROC", "x", "y", (curve, Series("other", curve.points))),)
        return View(name, "k", "s", True, tables=(Table(name, name, ("c",), rows),),
                    figures=charts if name == "same" else ())  # fmt: skip

    both = compared({"a": view("same", 0.1), "b": view("same", 0.2), "c": view("alone", 0.3)})
    columns = {table.name: table.columns for table in both.tables}
    assert columns["same"] == ("a", "b") and columns["alone"] == ("c",)
    (chart,) = (one for one in both.figures if isinstance(one, Chart))
    assert [one.name for one in chart.series] == ["a", "b"]  # the first curve of each
    assert chart.series[1].points[0].select == {"run": "b", "outcome": "right"}


def test_formats_hold_the_same_numbers(two: dict[str, View]) -> None:
    document = json.loads(to_json(two))
    schema = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
    jsonschema.validate(document, schema)
    rows = list(csv.DictReader(io.StringIO(to_csv(two))))
    numbers = [one for run in document["runs"] for one in run["numbers"]]
    listed = [row for row in rows if row["table"] != "claims"]
    assert [float(row["value"]) for row in listed] == [one["value"] for one in numbers]
    assert [row["low"] for row in listed if row["low"] == ""]  # missing is empty
    claims = [row for row in rows if row["table"] == "claims"]
    assert [row["verdict"] for row in claims] == [
        one["verdict"] for run in document["runs"] for one in run["claims"]
    ]
    text = to_markdown(compared(two))
    assert text.startswith("# 2 runs compared\n") and "| 37.5% [" in text


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "@x", "-2"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text: str) -> None:
    assert harmless(text) == "'" + text
    assert harmless(-2.5) == -2.5


def test_markdown_of_a_name_is_the_name() -> None:
    view = hostile_view("<img src=x>|[a](javascript:1)\n# b")
    text = to_markdown(view)
    assert "<img" not in text.replace("\\<img", "") and "\n# b" not in text
    assert "[a\\](" in text  # no link


# -- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_page_and_prints_the_rest(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.start([run], kind="html", out=None)
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    capsys.readouterr()
    command.start([run], kind="csv", out=None)
    assert capsys.readouterr().out.startswith("run,kind,table,row,column,value")
    command.start([run], kind="json", out=tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["runs"][0]["run"] == "arc1-x"


@pytest.mark.parametrize(
    ("paths", "kind", "message"),
    [
        (["nowhere"], "html", "nowhere: no run here"),
        ([], "html", "^threearc report needs a run"),
        (["x"], "pdf", "^--format pdf: give one of html, md, csv, json$"),
    ],
)
def test_a_mistake_is_one_line(paths: list[str], kind: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        command.start([Path(one) for one in paths], kind=kind, out=None)
    assert "\n" not in str(caught.value)


def test_a_damaged_run_is_named_with_its_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("manifest.json", METRICS):
        (damaged / name).write_text((run / name).read_text())
    (damaged / "items.jsonl").write_text("{}x\n{}\n")
    with pytest.raises(SystemExit) as caught:
        main(["report", str(damaged)])
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == ""
    assert said.err.count("\n") == 1 and "items.jsonl, line 1: not JSON" in said.err


def test_a_page_over_an_older_one_is_said_but_for_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "views_of", lambda _: {})
    monkeypatch.setattr(command, "_text", lambda *_: "a page")
    Path("a").mkdir()
    for paths, out, lines in (
        (["a", "b"], None, ["comparison.html.", "comparison.html, over what was there."]),
        (["a"], "x.md", ["x.md.", "x.md, over what was there."]),
        (["a"], None, ["a/report.html.", "a/report.html."]),
    ):
        for line in lines:
            kind = "md" if out else "html"
            command.start([Path(one) for one in paths], kind=kind, out=out and Path(out))
            assert capsys.readouterr().err == f"Written to {line}\n"
