"""Tables read the same from every format, and every defect is one line that says where."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcs.audits.readers import ReadOptions, read
from arcs.audits.results import LabelKind, Role
from models.errors import UserError

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.floats(allow_nan=False) | st.integers(-5, 5)
LABELS = st.one_of(
    st.booleans(), NUMBERS, st.sampled_from(["C", "I", "", "nan", " yes "]), st.none()
)


@st.composite
def tables(draw):
    n = draw(st.integers(1, 6))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    kind = draw(st.sampled_from([st.booleans(), NUMBERS, LABELS]))
    return {
        "task": [f"item {i}" for i in range(n)],
        "output": column(TEXT),
        "why": column(st.sampled_from(["stop", "length", ""])),
        "n": column(st.integers(0, 99)),
        "ok": column(kind),
    }


def write_csv(path: Path, table: dict[str, list]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def write_jsonl(path: Path, table: dict[str, list]) -> Path:
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


MAP = ReadOptions.from_flags(["item_id=task,response=output", "finish_reason=why", "passed=ok",
                              "generated_tokens=n"])  # fmt: skip


@settings(max_examples=60, deadline=None)
@example({"task": ["a"], "output": ['\u2028"\r\n,\x00'], "why": ["stop"], "n": [1], "ok": [True]})
@given(table=tables())
def test_csv_and_jsonl_of_one_table_give_equal_items(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("table")
    one = read(write_csv(folder / "a.csv", table), MAP).sets[0]
    other = read(write_jsonl(folder / "a.jsonl", table), MAP).sets[0]
    assert one.items == other.items
    assert one.instruments == other.instruments
    assert [item.response for item in one.items] == table["output"]
    assert [item.generated_tokens for item in one.items] == table["n"]
    changed = {**table, "n": [table["n"][0] + 1, *table["n"][1:]]}
    assert read(write_csv(folder / "b.csv", changed), MAP).sets[0].items != one.items


def test_json_rows_json_columns_and_npz_read_like_csv(tmp_path):
    table = {"item_id": ["a", "b", "c"], "passed": [True, False, True], "score": [1.5, 2.0, 0.0]}
    expected = read(write_csv(tmp_path / "t.csv", table)).sets[0].items
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "columns.json").write_text(json.dumps(table))
    np.savez(tmp_path / "t.npz", **{name: np.array(values) for name, values in table.items()})
    for name in ("rows.json", "columns.json", "t.npz"):
        assert read(tmp_path / name).sets[0].items == expected, name
    assert expected[0].labels == {"passed": True, "score": 1.5}
    assert expected[1].labels["passed"] is False


def test_what_is_missing_stays_missing(tmp_path):
    table = {"item_id": ["a", "b", "c", "d"], "passed": ["1", "", "NaN", "0"],
             "verdict": ["yes", "", "no", "yes"], "response": ["x", "", "y", "z"]}  # fmt: skip
    one = read(write_csv(tmp_path / "t.csv", table)).sets[0]
    assert one.values("passed") == [True, None, None, False]
    assert one.values("verdict") == [True, None, False, True]  # a yes-or-no column is PASS
    assert one.items[1].response == ""
    assert all(item.finish_reason is None and item.prompt is None for item in one.items)
    assert one.instruments["passed"].kind is LabelKind.PASS
    assert one.instruments["verdict"].kind is LabelKind.PASS
    assert one.instruments["verdict"].classes is None


def test_nan_and_null_of_jsonl_are_missing(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"id": 1, "score": NaN, "a": {"b": 0.25}}\n{"id": 2, "score": 3, "a": null}\n'
    )
    one = read(tmp_path / "t.jsonl").sets[0]
    assert one.values("score") == [None, 3.0]
    assert one.values("a.b") == [0.25, None]
    assert [item.item_id for item in one.items] == ["1", "2"]


def test_arms_and_budgets_in_columns_become_sets(tmp_path):
    table = {"item_id": ["a", "b"] * 3, "arm": ["base"] * 4 + ["new"] * 2,
             "n_predict": [64, 64, 128, 128, 64, 64], "passed": [0, 1, 1, 1, 0, 0],
             "role": ["test"] * 6}  # fmt: skip
    sets = read(write_csv(tmp_path / "t.csv", table)).sets
    assert [(s.arm, s.n_predict, len(s.items)) for s in sets] == [
        ("base", 64, 2), ("base", 128, 2), ("new", 64, 2),
    ]  # fmt: skip
    assert all(s.role is Role.TEST for s in sets)
    assert sets[0].values("passed") == [False, True]


def test_free_text_that_nobody_named_is_no_label_and_is_said(tmp_path):
    table = {"item_id": list(range(20)), "notes": [f"note {i}" for i in range(20)], "ok": [1] * 20}
    found = read(write_csv(tmp_path / "t.csv", table))
    assert set(found.sets[0].instruments) == {"ok"}
    assert "'notes' is free text (20 different values)" in found.skipped[0]
    named = read(tmp_path / "t.csv", ReadOptions({"item_id": "item_id", "prompt": "notes"}))
    assert named.sets[0].items[3].prompt == "note 3" and not named.skipped


def test_features_come_with_ids_or_say_that_they_are_numbered(tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "with.npz", X=x, ids=np.array(["p", "q", "r"]), y=[1, 0, 1])
    np.savez(tmp_path / "without.npz", X=x, y=[1, 0, 1])
    one, other = (read(tmp_path / f"{name}.npz").sets[0] for name in ("with", "without"))
    assert one.features.item_ids == ("p", "q", "r") and not one.features.ids_are_positions
    assert other.features.item_ids == ("0", "1", "2") and other.features.ids_are_positions
    assert np.array_equal(one.features.x, x.astype(np.float32))
    assert one.values("y") == [True, False, True] and set(one.instruments) == {"y"}


AUDIT = """
[[sets]]
file = "train.csv"
name = "the training set"
role = "train"
arm = "base"
task = "quiz"
n_predict = 512
family = "f"
columns = { item_id = "task", passed = "ok" }
features = "x.npz"
settings = { dtype = "bfloat16", seed = 3 }
feature_settings = { dtype = "float32" }
[sets.instruments.coverage]
kind = "share"
scale = [0, 1]
judge = "some model"
threshold = 0.5
threshold_label = "passed"
[sets.instruments.tone]
kind = "class"
classes = ["assert", "hedge"]
default = "assert"
response_cut = 1500
"""


def audited_folder(folder: Path, text: str = AUDIT) -> Path:
    table = {"task": ["a", "b"], "ok": [True, False], "coverage": [1, 0], "tone": ["assert", ""]}
    write_csv(folder / "train.csv", table)
    np.savez(folder / "x.npz", X=np.eye(2), ids=np.array(["b", "a"]))
    (folder / "audit.toml").write_text(text)
    return folder


def test_an_audit_toml_says_what_files_are(tmp_path):
    one = read(audited_folder(tmp_path)).sets[0]
    assert (one.name, one.role, one.arm, one.task) == (
        "the training set", Role.TRAIN, "base", "quiz",
    )  # fmt: skip
    assert (one.n_predict, one.family) == (512, "f")
    assert one.settings == {"dtype": "bfloat16", "seed": "3"}
    assert one.features.settings == {"dtype": "float32"}
    assert one.features.item_ids == ("b", "a")
    coverage, tone = one.instruments["coverage"], one.instruments["tone"]
    assert coverage.kind is LabelKind.SHARE and coverage.judge == "some model"
    assert coverage.scale == (0.0, 1.0) and coverage.threshold_label == "passed"
    assert tone.classes == ("assert", "hedge") and tone.response_cut == 1500
    # 1 and 0 of a declared share are numbers, not passes
    assert one.values("coverage") == [1.0, 0.0]
    assert one.values("coverage")[0] is not True
    assert one.values("tone") == ["assert", None]
    assert one.instruments["passed"].kind is LabelKind.PASS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("role = ", "rolle = ", r"sets\.0\.rolle"),
        ('role = "train"', 'role = "practice"', r"sets\.0\.role"),
        ('file = "train.csv"', 'file = "gone.csv"', r"no file gone\.csv"),
        ("n_predict = 512", "n_predict = 0", r"sets\.0\.n_predict"),
        ('kind = "class"', 'kind = "score"', "'assert' is not a number"),
        ("[sets.instruments.tone]", "[sets.instruments.tune]", "no column 'tune'"),
        ("[[sets]]", "[[sets]", "not TOML"),
        ('passed = "ok"', 'passed = "okay"', "no column 'okay' for passed"),
    ],
)
def test_mistakes_in_an_audit_toml_are_one_line(tmp_path, old, new, message):
    assert old in AUDIT
    folder = audited_folder(tmp_path, AUDIT.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "item_id,x\na,1\nb\n", r"a\.csv:3: 1 fields where the header has 2"),
        ("a.csv", 'item_id,x\na,"1\n', r"a\.csv:2: malformed CSV"),
        ("a.csv", "item_id,x,x\na,1,2\n", "two columns are called 'x'"),
        ("a.csv", "item_id,x\n", "has no rows"),
        ("a.csv", "", "is empty"),
        ("a.csv", "name,x\na,1\n", "no item_id; say --columns item_id=NAME with one of name, x"),
        ("a.csv", "item_id,x\na,1\na,2\n", r"1 item ids are there more than once \('a' first\)"),
        ("a.csv", "item_id,x\n,1\n", r"a\.csv:2: has no item_id"),
        ("a.csv", "item_id,generated_tokens\na,many\n", r"a\.csv:2, generated_tokens: 'many'"),
        ("a.csv", "item_id,role\na,valid\n", r"a\.csv:2: role 'valid'"),
        ("a.jsonl", '{"id": 1}\n{"id": \n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"id": 1}\n[2]\n', r"a\.jsonl:2: not a JSON object"),
        ("a.json", '[{"id": 1},\n{"id" 2}]', r"a\.json:2: not JSON"),
        ("a.json", '{"id": [1, 2], "x": [1]}', r"different length \(id 2, x 1\)"),
        ("a.json", '{"id": 1}', "not a table"),
        ("a.npz", "no archive", "not a readable NPZ file"),
        ("a.parquet", "PAR1", "not a table"),
    ],
)
def test_every_defect_of_a_table_is_one_line_that_says_where(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(2), ids=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(UserError, match="pickled objects"):
        read(tmp_path / "a.npz")


def test_arrays_of_different_length_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(3), y=[1, 0])
    with pytest.raises(UserError, match=r"different length \(X 3, y 2\)"):
        read(tmp_path / "a.npz")


def test_numbered_features_of_another_number_of_items_are_refused(tmp_path):
    folder = audited_folder(tmp_path)
    np.savez(folder / "x.npz", X=np.eye(3))
    with pytest.raises(UserError, match="features 3, items 2"):
        read(folder)


def test_features_of_other_items_are_refused(tmp_path):
    folder = audited_folder(tmp_path)
    np.savez(folder / "x.npz", X=np.eye(2), ids=np.array(["y", "z"]))
    with pytest.raises(UserError, match="none of its ids"):
        read(folder)


def test_a_folder_of_tables_reads_those_that_are_and_names_the_others(tmp_path):
    write_csv(tmp_path / "a.csv", {"item_id": ["1"], "ok": [True]})
    (tmp_path / "b.jsonl").write_text("{\n")
    (tmp_path / "notes.txt").write_text("hello")
    found = read(tmp_path)
    assert [one.name for one in found.sets] == ["a"]
    assert len(found.skipped) == 2 and any("b.jsonl:1" in note for note in found.skipped)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(UserError, match="nothing here that threearc audit can read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["item_id"], "write field=column"),
        (["item_id=a,item_id=b"], "name it once"),
        (["item_id="], "write field=column"),
    ],
)
def test_wrong_column_flags_are_one_line(flags, message):
    with pytest.raises(UserError, match=message):
        ReadOptions.from_flags(flags)


def test_an_unknown_column_and_a_misspelt_field_are_named(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"task": ["1"], "output": ["x"]})
    with pytest.raises(UserError, match="no column 'tasks' for item_id; it has task, output"):
        read(path, ReadOptions({"item_id": "tasks"}))
    with pytest.raises(UserError, match="'response' is meant"):
        read(path, ReadOptions({"item_id": "task", "respose": "output"}))


def test_nothing_at_the_path_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read(tmp_path / "gone")


def test_long_responses_and_semicolons_are_read(tmp_path):
    (tmp_path / "a.csv").write_text(f'item_id;response\n1;"{"x" * 200_000}; and more"\n')
    assert read(tmp_path / "a.csv").sets[0].items[0].response.endswith("x; and more")
    assert csv.field_size_limit() == 131072


DECLARED = """
[[probes]]
name = "correctness"
configuration = "C=1.0"
run = "first"
test_auc = 0.52
n_positive = 9
n_negative = 184
train_auc = 0.52
train_auc_gate = 0.65
operating_point = { threshold = 0.06, asymmetry = -0.16, chosen_on = "test" }

[[rankings]]
name = "heads"
n_first = 38
n_second = 53
effects = [{ name = "L16H5", effect = 0.6 }, { name = "L4H1", effect = -0.5 }]

[[interventions]]
name = "lambda 0.5"
sweep = "humble"
strength = 0.5
is_control = false
seed = 2000

[[claims]]
statement = "the probe works"
effect = 0.13
kind = "auc"
n = 193
n_positive = 9
"""


def test_probes_rankings_interventions_and_claims_can_be_declared(tmp_path):
    from arcs.audits.catalogue import run_audits

    (tmp_path / "audit.toml").write_text(DECLARED)
    results = read(tmp_path, ReadOptions())
    (probe,) = results.probes
    assert probe.operating_point.chosen_on is Role.TEST and probe.source.name == "audit.toml"
    assert results.rankings[0].effects[1].effect == -0.5
    assert results.interventions[0].seed == 2000 and results.claims[0].kind == "auc"
    found = {audit.name for audit, made in run_audits(results) if made.findings}
    assert {"training-cv-gate", "threshold-on-test-labels", "missing-control"} <= found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DECLARED.replace("test_auc = 0.52", 'test_auc = "high"'), "probes 1: test_auc"),
        (DECLARED.replace("strength = 0.5", "lambda = 0.5"), "interventions 1: "),
        ("sets = []", "declares nothing"),
        (DECLARED.replace("n_positive = 9", "n_positive = -4"), "probes 1: n_positive: -4 cannot"),
        (DECLARED.replace("test_auc = 0.52", "test_auc = nan"), "test_auc: nan cannot be"),
        (DECLARED.replace("train_auc = 0.52", "train_auc = 1.2"), "train_auc: 1.2 cannot be"),
        (DECLARED.replace("n_first = 38", "n_first = 0"), "rankings 1: n_first: 0 cannot be"),
        (DECLARED.replace("effect = 0.6", "effect = inf"), "rankings 1: effect: inf cannot"),
        (DECLARED.replace('kind = "auc"', 'kind = "foo"'), "claims 1: kind: 'foo' is none of"),
    ],
)
def test_what_is_declared_wrongly_is_one_line(tmp_path, text, message):
    (tmp_path / "audit.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path, ReadOptions())


def test_columns_about_the_run_and_empty_ones_are_no_labels(tmp_path):
    table = {"item_id": ["a", "b"], "passed": [1, 0], "seed": [0, 0], "model": ["m", "m"],
             "note": ["", ""]}  # fmt: skip
    results = read(write_csv(tmp_path / "t.csv", table))
    assert set(results.sets[0].instruments) == {"passed"}
    assert sum("not read" in note for note in results.skipped) == 3
    named = read(write_csv(tmp_path / "t.csv", table), ReadOptions({"model": "model"}))
    assert "model" in named.sets[0].instruments


def test_a_feature_table_of_two_roles_gives_each_set_its_own_rows(tmp_path):
    np.savez(
        tmp_path / "t.npz",
        X=np.arange(12, dtype=np.float32).reshape(6, 2),
        ids=np.array(list("abcdef")),
        role=np.array(["train"] * 4 + ["test"] * 2),
    )
    train, test = read(tmp_path / "t.npz").sets
    assert train.features.item_ids == tuple("abcd") and test.features.item_ids == tuple("ef")
    assert test.features.x.tolist() == [[8, 9], [10, 11]]
