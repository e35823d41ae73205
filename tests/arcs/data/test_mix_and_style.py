"""``threearc data mix``, and what ``stats`` says of training data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcs.data.command import stats
from arcs.data.mixing import Part, mix, part
from arcs.data.sets import open_set
from arcs.data.style import style, token_lengths
from arcs.training_data import Preference, Record
from models.errors import UserError


def write(path: Path, prefix: str, n: int, **more: object) -> str:
    lines = [json.dumps({"id": f"{prefix}{i}", "prompt": f"{prefix} question {i}",
                         "response": f"Answer {i}.", **more}) for i in range(n)]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_length_without_a_model_is_refused(tmp_path: Path) -> None:
    mine = write(tmp_path / "a.jsonl", "a", 2)
    with pytest.raises(UserError, match=r"^--max-length 9: .* give --model too$"):
        stats(mine, kind=None, model=None, max_length=9, as_json=True)


def test_amounts_are_kept_lines_are_the_sets_own_and_the_seed_decides(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", "a", 20, type="gold")
    b = write(tmp_path / "b.jsonl", "b", 30)
    made = mix([part(f"{a}:5"), part(f"{b}:0.5")], seed=1, out=tmp_path / "m.jsonl",
               one_per_prompt=False)  # fmt: skip
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    own = (tmp_path / "a.jsonl").read_text().splitlines() + Path(b).read_text().splitlines()
    assert len(lines) == made["records"] == 20 and set(lines) <= set(own)
    assert made["types"] == {"None": 15, "gold": 5}
    assert [one["taken"] for one in made["sources"]] == [5, 15]
    kinds = [json.loads(line)["id"][0] for line in lines]
    assert kinds != sorted(kinds)  # mixed, not one after the other
    again = mix([part(f"{a}:5"), part(f"{b}:0.5")], seed=1, out=tmp_path / "n.jsonl",
                one_per_prompt=False)  # fmt: skip
    other = mix([part(f"{a}:5"), part(f"{b}:0.5")], seed=2, out=tmp_path / "o.jsonl",
                one_per_prompt=False)  # fmt: skip
    assert made["sha256"] == again["sha256"] != other["sha256"]
    assert open_set(str(tmp_path / "m.jsonl")).licence is None  # nobody said


def test_one_prompt_once(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", "x", 4)
    b = tmp_path / "b.jsonl"
    b.write_text(Path(a).read_text().replace('"id": "x', '"id": "y'))
    made = mix([part(a), part(str(b))], seed=0, out=tmp_path / "m.jsonl", one_per_prompt=True)
    assert made["records"] == 4 and made["sources"][1]["same_prompt_passed_over"] == 4


@pytest.mark.parametrize(
    ("more", "said"),
    [({"split": "held_out"}, "have one prompt"), ({}, "occurs in two sets")],
)
def test_what_clashes_is_refused(tmp_path: Path, more: dict[str, object], said: str) -> None:
    a = write(tmp_path / "a.jsonl", "x", 3)
    b = tmp_path / "b.jsonl"
    lines = [json.loads(line) | more for line in Path(a).read_text().splitlines()]
    names = [{**one, "id": f"y{i}"} if more else one for i, one in enumerate(lines)]
    b.write_text("".join(json.dumps(one) + "\n" for one in names))
    with pytest.raises(UserError, match=said):
        mix([part(a), part(str(b))], seed=0, out=tmp_path / "m.jsonl", one_per_prompt=False)
    assert not (tmp_path / "m.jsonl").exists()


def test_too_few_records_two_kinds_and_odd_amounts_are_one_line(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", "a", 2), write(tmp_path / "b.jsonl", "b", 2)
    out = tmp_path / "m.jsonl"
    with pytest.raises(UserError, match="3 records are wanted, 2 can be taken"):
        mix([part(f"{a}:3"), part(b)], seed=0, out=out, one_per_prompt=False)
    with pytest.raises(UserError, match="mcas"):
        mix([part(a), part("mcas")], seed=0, out=out, one_per_prompt=False)
    for amount in ("-1", "0", "1.5"):
        with pytest.raises(UserError, match="give a number of records"):
            part(f"{a}:{amount}")
    assert part("dispositions_code:1") == Part("dispositions_code", 1.0)
    assert part("C:/x/y.jsonl").amount is None


def record(i: int, response: str) -> Record:
    provenance = {"licences": ["mit"]} if i % 2 else None
    return Record(id=f"r{i}", prompt=f"q{i}", response=response, provenance=provenance)


def test_style_counts_what_it_names() -> None:
    texts = ["```python\nx = 1\n```\nDone.", "I am not sure, perhaps it is so. 🎉",
             "Let me check: 2 + 2 is 4, which matches.", "**Bold** claim."]  # fmt: skip
    found = style([record(i, text) for i, text in enumerate(texts)])
    shares = (found.code, found.hedged, found.self_checked, found.markdown, found.emoji)
    assert shares == (0.25, 0.25, 0.25, 0.25, 0.25)
    assert found.licences == {"mit": 2} and found.without_provenance == 2


def test_texts_written_alike_are_more_uniform_than_texts_that_are_not() -> None:
    same = [record(i, f"You should take the pan, and then you put it on the fire {i}.")
            for i in range(6)]  # fmt: skip
    ours = open_set("dispositions_cooking").records[:40]
    varied, alike = style(ours).uniformity, style(same).uniformity
    assert varied is not None and alike is not None and alike > 0.95 > varied
    assert style(same[:1]).uniformity is None


def test_a_pair_is_two_sequences_and_those_too_long_are_counted() -> None:
    class Encoder:
        def encode_example(self, prompt: str, response: str, *, item: str = "") -> object:
            return type("E", (), {"ids": tuple(range(len(f"{prompt}{response}")))})()

    pair = Preference(id="p", prompt="abc", chosen="d" * 7, rejected="e" * 27)
    found = token_lengths([pair], Encoder(), "m", 20)
    assert (found.n, found.ids.least, found.ids.most, found.truncated) == (2, 10, 30, 1)
