"""``threearc data import csv|jsonl``: a column map onto a record, and nothing dropped silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcs.cli import main
from arcs.data.columns import Columns, import_table, pairs_of
from arcs.data.kinds import KINDS
from arcs.data.sets import open_set
from models.errors import UserError


def imported(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, dict, str]:
    """Status, the printed document, stderr."""
    with pytest.raises(SystemExit) as end:
        main(["data", "import", *(str(part) for part in argv), "--json"])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), json.loads(out) if out else {}, err


TABLE = (
    'qid,question,right,note\r\n1,"What is Italy\'s capital?",Rome|Roma,x\r\n'
    '2,"Two lines,\nand a ""quote""?",Paris,\r\n\r\n3,What is 2+2?,4,\r\n'
)
MAP = ("--as", "short_answer", "--map", "id=qid,prompt=question,answers=right",
       "--set", "domain=geography", "--set", "kind=capital", "--list-separator", "|")  # fmt: skip


def test_a_csv_becomes_records_that_the_set_reader_reads(tmp_path: Path, capsys) -> None:
    path, out = tmp_path / "q.csv", tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + TABLE.encode())  # as spreadsheets write it
    status, document, _ = imported(capsys, "csv", path, *MAP, "--author", "A. Cook", "--out", out)
    assert status == 0
    assert document["unused_columns"] == ["note"]
    assert (document["rows"], document["records"], document["bad_rows"]) == (3, 3, [])
    found = open_set(str(out))
    assert found.kind.name == "short_answer" and found.author == "A. Cook" and not found.notes
    first, second, third = found.records
    assert (first.id, first.answers, first.domain) == ("1", ("Rome", "Roma"), "geography")
    assert second.prompt == 'Two lines,\nand a "quote"?' and third.answers == ("4",)
    meta = json.loads((tmp_path / "q.jsonl.meta.json").read_text())
    assert meta["columns"] == {"id": "qid", "prompt": "question", "answers": "right"}
    assert meta["source"]["file"] == "q.csv" and meta["sha256"] == found.contents.sha256
    # the same import again changes nothing; another one does not overwrite it
    assert imported(capsys, "csv", path, *MAP, "--author", "A. Cook", "--out", out)[0] == 0
    path.write_text(TABLE.replace("Rome|", ""))
    status, _, err = imported(capsys, "csv", path, *MAP, "--out", out)
    assert status == 2 and "other content" in err


def test_bad_rows_are_listed_by_the_number_a_spreadsheet_shows(tmp_path: Path, capsys) -> None:
    path, out = tmp_path / "q.csv", tmp_path / "q.jsonl"
    path.write_text(
        "qid,question,right\n1,One?,a\n1,Again?,b\n3,,c\n4,Four?\n5,Five?,e,f\n6,Six?,g\n"
    )
    status, document, _ = imported(capsys, "csv", path, *MAP, "--out", out)
    assert status == 1 and not out.exists() and document["written"] is False
    bad = {one["row"]: one["what"] for one in document["bad_rows"]}
    assert bad.keys() == {3, 4, 5, 6}
    assert bad[3] == "id '1' again, first in row 2"
    assert bad[4].startswith("prompt:")
    assert bad[5] == "fewer cells than the header has columns"
    assert bad[6] == "more cells than the header has columns"
    assert (document["rows"], document["records"]) == (6, 2)
    status, document, _ = imported(capsys, "csv", path, *MAP, "--out", out, "--keep-good")
    assert status == 0 and document["written"] is True
    assert [one.id for one in open_set(str(out)).records] == ["1", "6"]
    meta = json.loads((tmp_path / "q.jsonl.meta.json").read_text())
    assert {one["row"] for one in meta["bad_rows"]} == {3, 4, 5, 6}


def test_labels_keep_their_type(tmp_path: Path, capsys) -> None:
    path, out = tmp_path / "l.csv", tmp_path / "l.jsonl"
    path.write_text(
        "item_id,value,status,judge\na,3,ok,gpt\na,0.5,ok,\na,true,ok,7\na,assert,ok,\na,,unparsed,\n"
        "a,,ok,\na,2,error,\na,NaN,ok,\n"
    )
    given = ("csv", path, "--as", "label", "--set", "instrument=mine:v1", "--make-ids", "l")
    status, document, _ = imported(capsys, *given, "--out", out, "--keep-good")
    assert status == 0
    assert [one["row"] for one in document["bad_rows"]] == [7, 8, 9]
    records = open_set(str(out)).records
    assert [one.value for one in records] == [3, 0.5, True, "assert", None]
    assert [type(one.value) for one in records] == [int, float, bool, str, type(None)]
    assert records[0].id == "l-0002" and records[2].judge == "7" and records[1].judge is None


def test_jsonl_is_mapped_too_and_numbers_may_be_ids(tmp_path: Path, capsys) -> None:
    path, out = tmp_path / "s.jsonl", tmp_path / "r.jsonl"
    path.write_text(
        '{"n": 7, "instruction": "Add 1", "output": "x+1", "tags": ["humble"]}\n'
        '{"n": 8, "instruction": "Add 2", "output": "x+2", "extra": 1}\nnot json\n'
    )
    names = "id=n,prompt=instruction,response=output,dispositions=tags"
    given = ("jsonl", path, "--as", "training", "--map", names, "--out", out)
    status, document, _ = imported(capsys, *given)
    assert status == 1 and [one["row"] for one in document["bad_rows"]] == [3]
    assert document["rows"] == 3
    status, document, _ = imported(capsys, *given, "--keep-good")
    assert document["unused_columns"] == ["extra"]
    first, second = open_set(str(out)).records
    assert (first.id, first.dispositions) == ("7", ("humble",)) and second.response == "x+2"


@pytest.mark.parametrize(
    ("columns", "text", "message"),
    [
        (Columns({"colour": "a"}), "id,prompt\n", "--map colour: prompt records have no such"),
        (Columns({}, {"colour": "a"}), "id,prompt\n", "--set colour: prompt records have no"),
        (Columns({"id": "a"}, {"id": "b"}), "id\n", "--map and by --set"),
        (Columns({"id": "qid"}), "id,prompt\n1,p\n", "has no such column; it has id, prompt"),
        (Columns({"id": "a"}, make_ids="x"), "a\n", "ids are mapped already"),
        (Columns(), "id,id\n1,2\n", "2 columns are called 'id'"),
        (Columns(), "", "is empty"),
        (Columns(delimiter=";;"), "id\n", "one character is needed"),
        (Columns(), 'id,prompt\n1,"open\n', "not CSV"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, columns: Columns, text: str, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        import_table(path, KINDS["prompt"], columns, "csv")
    assert "\n" not in str(caught.value)


def test_a_mapping_of_another_form_is_refused() -> None:
    assert pairs_of("--map", "a=b,c=d=e") == {"a": "b", "c": "d=e"}
    for text in ("a", "a=", "=b", "a=b,a=c"):
        with pytest.raises(UserError, match="--map"):
            pairs_of("--map", text)
    assert pairs_of("--set", ["key=", "domain=a,b"]) == {"key": "", "domain": "a,b"}


def test_tabs_are_the_default_of_tsv(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("id\tprompt\n1\tone, two\n")
    (found,) = import_table(path, KINDS["prompt"], Columns(), "csv").records
    assert found.prompt == "one, two"  # type: ignore[attr-defined]


def test_a_word_that_is_not_allowed_is_shown(tmp_path: Path, capsys) -> None:
    """``--set`` has no separator: a comma is part of its value, and the line must say so."""
    path = tmp_path / "q.csv"
    path.write_text("qid,question,right\n1,One?,a\n")
    given = (*MAP[:4], "--set", "domain=geography,kind=capital")
    status, document, _ = imported(capsys, "csv", path, *given, "--out", tmp_path / "q.jsonl")
    assert status == 1
    assert "not 'geography,kind=capital'" in json.dumps(document["bad_rows"])
