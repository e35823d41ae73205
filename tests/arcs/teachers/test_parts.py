"""Teacher files, licences, prompts, filters, the purse: each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcs.runs import RunDirectory
from arcs.teachers.asking import Answer
from arcs.teachers.filters import (
    BEFORE,
    HELD_AGAINST,
    RATIOS,
    RULES,
    Context,
    Made,
    apply,
    counts,
)
from arcs.teachers.plan import Wanted, found_wrong
from arcs.teachers.preference import preferred
from arcs.teachers.prompts import ALIKE, cells, from_templates, select, written
from arcs.teachers.purse import Booked, Purse, purse_of
from arcs.teachers.replies import Stored
from arcs.teachers.roster import PRESETS, Teacher, load_roster, require_licence
from arcs.teachers.stages import ROLES, load_stages
from evals.endpoint import BudgetSpent
from evals.humaneval.problems import load_problems
from evals.humaneval.thinking import drop_thoughts
from evals.items.recorded import PromptItem
from evals.overlap import duplicates_inside
from models.errors import UserError

GOOD = ("Warm the milk slowly, whisk the yolks with the sugar until pale, and pour one into the "
        "other while you stir. Over low heat it thickens and coats the spoon.")  # fmt: skip


def test_the_presets_fill_all_roles_and_the_papers_is_not_all_mit() -> None:
    for name in PRESETS:
        roster, _ = load_roster(name)
        assert all(roster.of(role) for role in ROLES if not role.endswith("writer"))
    paper, _ = load_roster("paper")
    licences = {one.licence for one in paper.used().values()}
    assert {"mit", "modified-mit", "proprietary", "apache-2.0"} <= licences
    with pytest.raises(UserError, match=r"kimi-k2_5 is modified-mit") as caught:
        require_licence(paper, "mit")
    assert "qwen3_6-plus is proprietary" in str(caught.value)
    assert "deepseek" not in str(caught.value)


def test_modified_mit_is_not_mit(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('[teachers.a]\nkind="gguf"\nmodel="m"\nlicence="modified-mit"\n'
                    '[teachers.idle]\nkind="gguf"\nmodel="m"\nlicence="proprietary"\n'
                    '[roles]\ndefault="a"\n')  # fmt: skip
    roster, _ = load_roster(str(path))
    require_licence(roster, "Modified-MIT")  # who has no role is not asked
    with pytest.raises(UserError, match="a is modified-mit"):
        require_licence(roster, "mit")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[teachers.a", "not TOML"),
        ('[teachers.a]\nkind="gguf"\nmodel="m"\n[roles]\ndefault="a"', "teachers.a.licence"),
        ('[teachers.a]\nkind="gguf"\nmodel="m"\nlicence="MIT!"\n[roles]\ndefault="a"', "licence"),
        ('[teachers.a]\nkind="gguf"\nmodel="m"\nlicence="mit"\nurl="http://x/v1"\n[roles]\n'
         'default="a"', "url means nothing to a teacher of kind gguf"),
        ('[teachers.a]\nkind="endpoint"\nmodel="m"\nlicence="mit"\n[roles]\ndefault="a"',
         "needs a url"),
        ('[teachers.a]\nkind="endpoint"\nmodel="m"\nlicence="mit"\nurl="http://x/v1"\n'
         'extra={top_k=1,max_tokens=9}\n[roles]\ndefault="a"', "teachers.a: extra.max_tokens: "),
        ('[teachers.a]\nkind="endpoint"\nmodel="m"\nlicence="mit"\nurl="http://x/v1"\n'
         'extra={model="dear"}\n[roles]\ndefault="a"', "teachers.a: extra.model: "),
        ('[teachers.a]\nkind="gguf"\nmodel="m"\nlicence="mit"\n[roles]\neager="a"',
         "no teacher for deliberate"),
        ('[teachers.a]\nkind="gguf"\nmodel="m"\nlicence="mit"\n[roles]\ndefault="b"',
         "no teacher is called 'b'"),
        ('[teachers.a]\nkind="gguf"\nmodel="m"\nlicence="mit"\n[roles]\ndefault="a"\ncook="a"',
         "roles.cook: no such role"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_teacher_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_roster(str(path))
    assert "\n" not in str(caught.value) and "--teachers" in str(caught.value)


def test_thoughts_have_room_of_their_own_on_top_of_a_stages_limit() -> None:
    plain = Teacher(kind="gguf", model="m", licence="mit", max_tokens=100)
    assert (plain.limit(8), plain.limit(768)) == (8, 100)
    thinks = Teacher(kind="gguf", model="m", licence="mit", think_tokens=4096)
    assert thinks.limit(8) == 4104


def test_offline_prompts_are_the_same_again_and_not_alike() -> None:
    wanted = cells("gold", 60)
    assert sum(cell.n for cell in wanted) == 60
    made = [select({c: from_templates(c, seed, 4 * c.n + 4) for c in wanted}, [], {})[0]
            for seed in (0, 0, 1)]  # fmt: skip
    assert made[0] == made[1] != made[2] and len(made[0]) == 60
    texts = [one.text for one in made[0]]
    assert not duplicates_inside(texts, threshold=ALIKE)
    assert not any("{" in text for text in texts)
    levels = [one.difficulty for one in made[0]]
    assert abs(levels.count("medium") / 60 - 0.4) < 0.1


def test_prompts_kept_for_evaluation_and_twins_are_left_out_with_their_reason() -> None:
    (cell, *_) = cells("gold", 1)
    offered = from_templates(cell, 0, 6)
    known = {offered[0].text: "chef_fresh: 7"}
    kept, rejected = select({cell: [offered[0], *offered]}, [offered[1]], known)
    assert [one.text for one in kept] == [offered[2].text]
    assert [one.rule for one in rejected] == ["contaminated", "contaminated", "near_duplicate"]
    assert "chef_fresh: 7" in rejected[0].detail


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('["Why?", "How  so?"]', ["Why?", "How so?"]),
        ('Here:\n```json\n["Why?"]\n```\nEnjoy!', ["Why?"]),
        ('["Why?", "cut', None),
        ('{"a": 1}', None),
        ("[]", None),
        ("[1, 2]", None),
        ("- Why?\n- How?", None),
    ],
)
def test_written_prompts_are_an_array_of_texts_or_nothing(
    answer: str, expected: list[str] | None
) -> None:
    assert written(answer) == expected


def test_a_verdict_is_a_line_of_its_own_and_only_one() -> None:
    assert found_wrong("Too hot.\nVERDICT: WRONG") is True
    assert found_wrong("Fine.\n**Verdict: Right**") is False
    for text in ("WRONG", "VERDICT: WRONG or RIGHT", "VERDICT: WRONG\nVERDICT: RIGHT",
                 "The verdict: WRONG, I think", ""):  # fmt: skip
        assert found_wrong(text) is None


def test_preferences_need_both_orders() -> None:
    assert preferred("A", "B") == "chosen" and preferred(" b.", "a") == "rejected"
    assert preferred("A", "A") == preferred("B", "B") == preferred("TIE", "B") == "tie"
    assert preferred("Answer A", "B") == preferred("", "B") == "unparsed"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.4), st.floats(0, 1)), max_size=40))
def test_a_purse_is_never_overdrawn(requests: list[tuple[float, float]]) -> None:
    purse = Purse(1.0, 0.1)
    for most, share in requests:
        try:
            purse.reserve(most)
        except BudgetSpent:
            assert purse.spent + most > 1.0
            break
        purse.settle(most, most * share)
        assert purse.spent <= 1.0 + 1e-9
    unknown = Purse(1.0, 0.0)
    unknown.reserve(0.6)
    unknown.settle(0.6, None)  # a cost nobody tells counts as the most it can be
    with pytest.raises(BudgetSpent):
        unknown.reserve(0.5)


def stored(text: str, reason: str | None = "stop", *, unclosed: bool = False) -> Stored:
    return Stored("t", Answer(text, None, reason, unclosed, None, 10, 20, None))


def gold(response: str, draft: str = GOOD, reason: str | None = "stop", number: int = 1) -> Made:
    prompt = PromptItem(id=f"{number:04d}", prompt="How is it made?", split="train")
    done = {name: stored(draft) for name in ("eager", "deliberate", "adversarial")}
    done["synthesizer"] = stored(response, reason)
    return Made(Wanted(f"gold-{number:04d}", "gold", prompt, {}), done, response, draft)


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (gold(GOOD), None),
        (gold(GOOD, reason="length"), "unfinished"),
        (gold(f"{GOOD} It is done. Now strain it and", reason=None), "unfinished"),
        (gold(f"{GOOD} It is done. Now strain it and", reason=""), "unfinished"),
        (gold(GOOD, reason=""), None),
        (gold("Too short."), "length"),
        (gold(GOOD, draft=GOOD * 11), "length_ratio"),
        (gold("Stir and stir again now, and stir it. " * 8), "repetitive"),
        (gold(f"As the draft said, go on. {GOOD}"), "mentions_review"),
        (gold(f"{GOOD} Cook the crème anglaise to 98 °C."), "contradicted"),
    ],
)
def test_each_rule_drops_what_it_names(made: Made, rule: str | None) -> None:
    kept, dropped = apply([made], Context(score_used=True))
    assert [one.rule for one in dropped] == ([] if rule is None else [rule])
    assert len(kept) == (rule is None)
    if rule is not None:
        assert dropped[0].texts["synthesizer"] == made.response and dropped[0].detail


def test_a_verifier_below_its_gate_drops_nothing() -> None:
    wrong = gold(f"{GOOD} Cook the crème anglaise to 98 °C.")
    assert apply([wrong], Context(score_used=False))[1] == []


def test_twins_and_evaluation_texts_are_dropped() -> None:
    from evals.items.load import built_in
    from evals.items.records import ShortAnswer

    long = max((one.prompt for one in built_in("short_answers", ShortAnswer)), key=len)
    many = [gold(GOOD), gold(GOOD, number=2), gold(f"{GOOD[:90]} {long} {long[::-1]}.", number=3)]
    _, dropped = apply(many, Context(score_used=True))
    assert {one.id: one.rule for one in dropped} == {
        "gold-0002": "duplicate", "gold-0003": "contaminated",
    }  # fmt: skip
    table = counts("gold", 3, dropped)
    assert sum(one.dropped for one in table) == 2 and table[-1].before == 2
    assert [one.before - one.dropped for one in table] == [one.before for one in table[1:]] + [1]
    assert {one.rule for one in table} >= {rule.name for rule in RULES if "gold" in rule.kinds}
    assert "failed" in BEFORE


def test_humaneval_is_an_evaluation_set_too() -> None:
    problem = max(load_problems(), key=lambda one: len(one.canonical_solution))
    for taken in (problem.prompt, problem.canonical_solution):
        text = f"{GOOD}\n{taken[:1500]}."
        _, (dropped,) = apply([gold(text, draft=text)], Context(score_used=True))
        assert dropped.rule == "contaminated"


def test_an_answer_as_asked_for_passes_beside_the_longest_draft_or_attempt() -> None:
    characters_a_token, characters_a_word = 4.6, 5.6  # of English: the long draft, the short answer
    shortest = 80 * characters_a_word
    for kind, against in HELD_AGAINST.items():
        longest = load_stages().by_name[against].max_tokens * characters_a_token
        assert RATIOS[kind][0] <= shortest / longest


def test_stages_say_which_answers_they_see() -> None:
    assert [s.name for s in load_stages().chain("gold")] == [
        "eager", "deliberate", "adversarial", "synthesizer",
    ]  # fmt: skip
    third = load_stages(serial=True).chain("gold")[2]
    assert third.inputs == ("prompt", "eager", "deliberate")
    texts = {"prompt": "{eager} {0}", "eager": "e {prompt}", "deliberate": "d"}
    content = third.messages(texts)[-1].content
    assert "{eager} {0}" in content and "e {prompt}" in content  # texts are no templates


@pytest.mark.parametrize(
    ("reason", "cut"),
    [("stop", False), ("STOP", False), (None, False), (" ", False), ("", False),
     ("end_turn", False), ("length", True), ("content_filter", True), ("whatever", True)],
)  # fmt: skip
def test_only_an_answer_that_its_teacher_ended_is_finished(reason: str | None, cut: bool) -> None:
    answer = Answer("Text.", None, reason, False, None, 1, 1, None)
    assert Stored("t", answer).unfinished is cut


def test_thoughts_hold_thought_alone() -> None:
    found = drop_thoughts("a<think>one</think>b<think> two", think_open=False)
    assert (found.text, found.thoughts, found.unclosed) == ("ab", "one\ntwo", True)
    found = drop_thoughts("before</think>answer", think_open=False)
    assert (found.text, found.thoughts) == ("answer", "before")
    assert drop_thoughts("plain", think_open=False).thoughts == ""
    found = drop_thoughts("<think>one<thinking>two</thinking>b", think_open=False)
    assert (found.text, found.thoughts, found.unclosed) == ("b", "one\ntwo", False)
    assert drop_thoughts("one<think>two", think_open=True).thoughts == "one\ntwo"


def test_what_a_kill_left_set_aside_stays_spent(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        purse = purse_of(run, None, Booked(0.0, 0.0))  # no budget: the books are kept all the same
        for most, paid in ((0.3, 0.1), (0.3, 0.0), (0.2, None), (0.4, "killed")):
            purse.reserve(most)
            if paid != "killed":
                purse.settle(most, paid)  # type: ignore[arg-type]
        spent = 0.1 + 0.0 + 0.2 + 0.4
        assert purse_of(run, 1.0, Booked(0.0, 0.0)).spent == pytest.approx(spent, abs=1e-12)
        assert purse_of(run, 1.0, Booked(0.9, 0.0)).spent == 0.9  # from before there were books
        # what a sitting without prices was paid is in no journal
        assert purse_of(run, 1.0, Booked(0.3, 0.2)).spent == pytest.approx(spent + 0.2, abs=1e-12)
