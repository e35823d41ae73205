"""The page in a real browser: Debian's Chromium, from disk, without a network.

Where no Chromium is installed these tests are skipped, unless THREEARC_NEEDS_CHROMIUM is set, as
.ci/run does where it installs one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arcs.report.page import page
from arcs.report.view import (
    HIDDEN,
    Answer,
    Block,
    Chart,
    Item,
    Number,
    Point,
    Series,
    State,
    View,
)
from arcs.report.writing import write_page, write_report
from tests.support.hostile_view import hostile_view
from tests.support.stored_runs import HOSTILE, answer, arc1_run, problems

WIDTHS = (360, 900, 1440)
TITLE = "document.title"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running browser that can reach nothing but files."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and not os.environ.get("THREEARC_NEEDS_CHROMIUM"):
        pytest.skip("no chromium (apt-get install chromium)")
    assert found is not None, "THREEARC_NEEDS_CHROMIUM is set, and there is no chromium"
    with sync_api.sync_playwright() as playwright:
        # root, as in containers, has no sandbox for the browser itself
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight problems, their answers full of markup; one gained, one lost, one cut at 64."""
    chosen = problems(8)
    base = [answer(one, passes=i in (0, 1, 2)) for i, one in enumerate(chosen)]
    trained = [
        answer(one, passes=i in (1, 2, 3), before=HOSTILE[i % 4], ids=100 if i == 2 else 40)
        for i, one in enumerate(chosen)
    ]
    path = arc1_run(tmp_path_factory.mktemp("browser") / HOSTILE[1].replace("/", "_"), base,
                    trained)  # fmt: skip
    write_report(path)
    return path


Opened = Callable[..., Any]


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opened]:
    """Open a file; at the end nothing may have gone wrong, and nothing been asked for."""
    context = chromium.new_context(offline=True, reduced_motion="reduce")
    troubles: list[str] = []
    requests: list[str] = []

    def open_(path: Path, fragment: str = "", width: int = 1440, dark: bool = False) -> Any:
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme="dark" if dark else "light")
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.resolve().as_uri() + fragment)
        return tab

    yield open_
    context.close()
    assert troubles == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def test_hostile_answers_are_shown_and_do_nothing(run: Path, opened: Opened) -> None:
    tab = opened(run / "report.html")
    title = tab.evaluate(TITLE)
    for summary in tab.query_selector_all(".item > summary"):
        summary.click()
    for chip in tab.query_selector_all(".chips button"):
        chip.click()
    tab.wait_for_function("document.querySelectorAll('.item > .body').length === 8")
    tab.wait_for_timeout(100)
    assert tab.evaluate(TITLE) == title != "owned"
    shown = tab.inner_text("#list")
    assert HOSTILE[0] in shown and HOSTILE[1] in shown
    assert "U+202E" in shown and "\u202e" not in shown  # what turns text around is spelt out
    assert tab.query_selector("#list script, #list img, #list svg") is None


SHOWN = (
    "h1", ".who p", ".badge", ".why", ".about", ".claim", ".facts", ".failure", ".note", "td > a",
    "td small", "thead th", "tbody th", ".caption", "figcaption", ".legend", ".plot-label",
    ".level-name", ".axis", ".made > summary", "dt", "dd code", ".says", ".id", ".side h4",
    ".chips button", ".tags", ".cut", ".side .block-title", ".side pre", ".facet > summary",
    ".facet label",
)  # fmt: skip
"""Where a name or a text may stand, by what the page calls the place."""


def test_what_turns_text_around_is_spelt_out_wherever_it_stands(
    opened: Opened, tmp_path: Path
) -> None:
    """Names of adapters, labels, claims, settings: not the items' texts alone."""
    path = tmp_path / "turned.html"
    write_page(path, page(hostile_view("a\u202egnp.exe\u2066\x1b[31m\u200b\ud800\U000e0041")))
    tab = opened(path)
    tab.evaluate("document.querySelector('.facet input').click()")  # its menu is then named so
    assert tab.locator(".facet.on").count() == 1
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true;")
    tab.wait_for_function("document.querySelector('.item > .body')")
    tab.evaluate("for (const one of document.querySelectorAll('.chips button')) one.click();")
    texts = tab.evaluate(
        "all => all.map(s => document.querySelector(s)?.textContent ?? '')",
        SHOWN,
    )
    wanted = "aU+202Egnp.exeU+2066U+001B[31mU+200BU+D800U+E0041"
    assert [
        selector for selector, text in zip(SHOWN, texts, strict=True) if wanted not in text
    ] == []
    assert not HIDDEN.search(tab.evaluate("document.documentElement.outerHTML"))
    assert not HIDDEN.search(tab.evaluate(TITLE))


def test_a_planted_script_is_stopped_by_the_policy(run: Path, chromium: Any, tmp_path: Path):
    """If escaping failed one day: the same page with a script in its middle."""
    whole = (run / "report.html").read_text()
    planted = tmp_path / "planted.html"
    evil = '<script>{0}</script><img src=x onerror="{0}">'.format("document.title='owned'")
    planted.write_text(whole.replace("<main", evil + "<main", 1))
    tab = chromium.new_page()
    tab.goto(planted.as_uri())
    tab.wait_for_timeout(100)
    assert tab.evaluate(TITLE) != "owned"
    assert tab.query_selector(".item") is not None  # the page's own script runs
    planted.write_text(planted.read_text().replace('http-equiv="Content-Security-Policy"', "x"))
    tab.goto(planted.as_uri())
    tab.wait_for_function("document.title === 'owned'")  # the policy it was
    tab.close()


def follow(tab: Any, link: Any) -> None:
    """Click, and wait until the page has read the new address: the browser tells it of that later.

    The page listens for the same event and was first, so that it is done when this one resolves.
    """
    tab.evaluate(
        """link => { window.followed = link.getAttribute("href") === location.hash
            ? Promise.resolve()
            : new Promise(done => addEventListener("hashchange", done, {once: true})); }""",
        link,
    )
    link.click()
    tab.evaluate("window.followed")


def test_every_link_of_a_number_shows_as_many_answers_as_it_says(run: Path, opened: Opened) -> None:
    tab = opened(run / "report.html")
    cells = tab.query_selector_all("#results td > a")
    counts = [one for one in cells if one.inner_text().isdecimal()]
    assert len(counts) > 8
    for one in counts:
        follow(tab, one)
        said = tab.inner_text("#matches")
        assert f", {one.inner_text()} of 32 answers" in said, (one.get_attribute("href"), said)
    follow(tab, tab.query_selector(".value a"))  # the verdict's: what was gained and lost
    assert sorted(tab.locator(".item .id").all_inner_texts()) == ["HumanEval/0", "HumanEval/3"]


def test_an_address_opens_at_the_items_it_names(run: Path, opened: Opened) -> None:
    tab = opened(run / "report.html", "#items?condition=trained&n_predict=64&cut=unfinished")
    assert tab.inner_text("#matches").startswith("1 of 8 items, 1 of 32 answers")
    assert tab.locator(".item[open]").count() == 1
    tab.locator(".side h4").nth(1).wait_for()  # an item's body is made when it has been opened
    sides = tab.locator(".side h4").all_inner_texts()
    assert sides == ["base", "trained"]
    pressed = tab.locator('.chips [aria-pressed="true"]').all_inner_texts()
    assert [text.split(":")[0] for text in pressed] == ["n 64", "n 64"]
    cut = tab.locator(".side:nth-child(2) .cut")
    assert cut.inner_text() == "✂ n_predict 64 ended here"
    boxes = [one.bounding_box() for one in tab.query_selector_all(".side")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]  # side by side


def test_it_can_be_used_without_a_mouse(run: Path, opened: Opened) -> None:
    tab = opened(run / "report.html")
    focused = "document.activeElement.closest('.item')?.querySelector('.id').textContent"
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    assert tab.evaluate(focused) == "HumanEval/1"
    tab.keyboard.press("k")
    assert tab.evaluate(focused) == "HumanEval/0"
    tab.keyboard.press("Enter")
    assert tab.locator(".item[open]").count() == 1
    tab.keyboard.press("/")
    tab.keyboard.type("HumanEval/7")
    assert tab.inner_text("#matches").startswith("1 of 8 items")
    tab.keyboard.press("Escape")
    tab.keyboard.press("x")
    assert tab.inner_text("#matches").startswith("8 items")
    tab.keyboard.press("?")
    assert tab.locator("dialog[open]").count() == 1
    tab.keyboard.press("Escape")
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.keyboard.press("t")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.matches(':focus-visible')")


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_width_and_can_be_read(run: Path, opened: Opened, dark: bool) -> None:
    tab = opened(run / "report.html", "#items?condition=trained&n_predict=64&cut=unfinished",
                 dark=dark)  # fmt: skip
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        if not os.environ.get("THREEARC_SCREENSHOTS"):
            continue
        folder = Path(os.environ["THREEARC_SCREENSHOTS"])
        tab.screenshot(path=folder / f"{width}-{'dark' if dark else 'light'}.png", full_page=True)
    for selector in (".badge", ".why", "a", ".caption", "td small", ".cut", "pre"):
        assert contrast(tab, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3


def contrast(tab: Any, selector: str) -> float:
    """Of the first such element's text with what is painted behind it."""
    ink, paper = tab.evaluate(
        """(selector) => {
          const of = (text) => text.match(/[\\d.]+/g).map(Number);
          let node = document.querySelector(selector), ink = of(getComputedStyle(node).color);
          for (; node; node = node.parentElement) {
            const paper = of(getComputedStyle(node).backgroundColor);
            if (paper.length < 4 || paper[3] > 0) return [ink, paper];
          }
          return [ink, [255, 255, 255]];
        }""",
        selector,
    )

    def luminance(colour: list[float]) -> float:
        parts = [one / 255 for one in colour[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_labels_are_filters_and_the_judges_words_are_read(opened: Opened, tmp_path: Path) -> None:
    def said(i: int) -> tuple[Answer, ...]:
        label = f"hedging={'yes' if i % 2 else 'no'}"
        words = Block("api:judge on hedging", f"{label} {HOSTILE[0]}", "words")
        return (Answer("base", "so", (State({"label": (label, "tone=4")}, (words,)),)),)

    items = tuple(Item(f"q/{i}", None, said(i)) for i in range(6))
    path = tmp_path / "labels.html"
    write_page(path, page(View("labels", "measure", "", True, items=items)))
    tab = opened(path)
    tab.click(".facet > summary:has-text('label')")
    yes, no = (tab.locator(".facet label", has_text=f"hedging={one}") for one in ("yes", "no"))
    yes.locator("input").check()
    assert tab.inner_text("#matches").startswith("3 of 6 items")
    no.locator("input").check()  # either of two values of one filter
    assert tab.inner_text("#matches").startswith("6 of 6 items")
    yes.locator("input").uncheck()
    assert tab.evaluate("location.hash") == "#items?label=hedging%3Dno"
    tab.keyboard.press("Escape")
    assert tab.locator(".facet[open]").count() == 0
    tab.locator(".item > summary").first.click()
    assert tab.inner_text(".item .words") == f"hedging=no {HOSTILE[0]}"


def test_a_point_of_a_curve_leads_to_its_answers_beside_the_base(
    opened: Opened, tmp_path: Path
) -> None:
    names = ("base", *(f"top-{scale}" for scale in ("0.9", "0.8", "0.5", "0")))
    items = tuple(
        Item(f"q/{i}", "why?", tuple(
            Answer(name, f"{name} {HOSTILE[i % 4]}", (State({"outcome": "wrong"}),))
            for name in names
        ))
        for i in range(3)
    )  # fmt: skip
    points = tuple(
        Point(place / 4, Number(-place / 9, "nats", -place / 9 - 0.05, 0.05, 0.95, 3),
              {"condition": name})
        for place, name in enumerate(names)
    )  # fmt: skip
    curves = (Series("top", points), Series("random", points[::4]))
    figure = Chart("axis", f"axis {HOSTILE[1]}", "lambda", "change", curves,
                   levels=(("what noise reaches", -0.2),), band=(-0.1, 0.1))  # fmt: skip
    path = tmp_path / "curves.html"
    write_page(path, page(View("curves", "arc2", "", True, figures=(figure,), items=items)))
    tab = opened(path)
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        frame = tab.locator(".chart").bounding_box()
        for one in tab.query_selector_all(".chart circle"):
            box = one.bounding_box()
            assert frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"]
    marks = tab.query_selector_all(".chart a")
    assert len(marks) == 5 + 2
    follow(tab, marks[4])  # drawn in the order of the points: lambda 0 of the first curve
    assert tab.inner_text("#matches").startswith("3 of 3 items, 3 of 15 answers")
    tab.fill("#filters input[type=search]", "nothing has this")
    assert tab.inner_text("#matches").startswith("0 of 3 items")
    follow(tab, marks[4])  # the same address again, which the browser does not tell of
    assert tab.inner_text("#matches").startswith("3 of 3 items, 3 of 15 answers")
    tab.locator(".item > summary").first.click()
    shown = tab.locator(".item[open] > .body > .sides h4")
    shown.nth(1).wait_for()  # an item's body is made when it has been opened
    assert shown.all_inner_texts() == ["base", "top-0"]
    tab.locator(".far > summary").click()
    folded = tab.locator(".far h4")
    folded.nth(2).wait_for()
    assert folded.all_inner_texts() == list(names[1:4])


def test_thousands_of_items_come_in_pages(opened: Opened, tmp_path: Path) -> None:
    def answers(i: int) -> tuple[Answer, ...]:
        states = tuple(State({"n_predict": n, "outcome": "passed" if i % 3 else "wrong"})
                       for n in ("256", "512"))  # fmt: skip
        text = f"answer {i} " * 40
        return Answer("base", text, states), Answer("edited", text + "!", states)

    items = tuple(Item(f"task/{i}", f"prompt {i}", answers(i)) for i in range(5000))
    path = tmp_path / "large.html"
    write_page(path, page(View("large", "eval", "", True, items=items)))
    tab = opened(path)
    assert tab.locator(".item").count() == 20
    assert "page 1 of 250" in tab.inner_text("#pages")
    tab.keyboard.press("]")
    assert tab.locator(".item .id").first.inner_text() == "task/20"
    tab.click("#pages button:text('last')")
    assert tab.locator(".item .id").last.inner_text() == "task/4999"
    tab.goto(path.as_uri() + "#items?outcome=wrong&n_predict=512&condition=edited")
    assert tab.inner_text("#matches").startswith("1,667 of 5,000 items, 1,667 of 20,000 answers")
