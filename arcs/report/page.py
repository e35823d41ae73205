"""A view as one HTML page: no network, no file beside it, no script but its own.

Texts are untrusted. What the template shows is escaped by jinja; items travel as JSON in a
script element that is not executed, with every character that HTML could read as markup
escaped, and the script builds their text nodes. The page's policy lets only that one script
run, by its hash, so that even markup that slipped through would do nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup

from arcs.report.charts import axis, chart
from arcs.report.view import (
    Block,
    Facets,
    Item,
    Select,
    Table,
    View,
    as_tuple,
    interval_text,
    shown,
    spelt,
)

TEMPLATES = Path(__file__).parent / "templates"
FACETS_FIRST = ("run", "condition", "n_predict", "outcome", "change", "cut", "label")
"""Filters in this order, others after them by name."""


def page(view: View) -> str:
    """The whole file."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            view=view,
            style=_own((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            script=_own(script),
            script_sha256=digest,
            data=_own(items_json(view.items)),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_spelt,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"link": link, "interval": interval_text, "data_url": data_url,
                            "axis": axis, "chart": chart, "words": words}  # fmt: skip
    environment.globals["shown"] = shown
    return environment


def _spelt(value: Any) -> Any:
    """Whatever the page shows; what is markup already was made of such or is our own."""
    return spelt(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def words(table: Table) -> tuple[bool, ...]:
    """Which columns hold words, which are read from the left, and no number or verdict."""
    return tuple(
        all(cell.number is None and cell.tone is None for cell in column)
        and any(any(one.isalpha() for one in cell.text) for cell in column)
        for column in zip(*(row.cells for row in table.rows), strict=True)
    ) or (False,) * len(table.columns)


def _own(text: str) -> Markup:
    """Our own text, or text made harmless: the only places where escaping is switched off."""
    return Markup(text)


def link(select: Select) -> str:
    """The address of the items behind a number, within the page."""
    pairs = [(name, value) for name, values in select.items() for value in as_tuple(values)]
    return "#items?" + urlencode(pairs, quote_via=quote, errors="replace")


def data_url(svg: str) -> str:
    """A picture as an address; as an image an SVG can run nothing."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


# -- items ----------------------------------------------------------------------------------------


class _Texts:
    """Each text once: answers repeat their programs at every budget."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._place: dict[str, int] = {}

    def of(self, text: str) -> int:
        if text not in self._place:
            self._place[text] = len(self.all)
            self.all.append(text)
        return self._place[text]


def items_json(items: Sequence[Item]) -> str:
    """Items for the page's script, harmless inside a script element."""
    texts = _Texts()
    listed = [_item(item, texts) for item in items]
    document = {"facets": facet_names(items), "items": listed, "texts": texts.all}
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
    # </script>, <!-- and entities cannot be written without these three
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def facet_names(items: Sequence[Item]) -> list[str]:
    """Every facet that occurs."""
    found = {"condition"} if items else set()
    for item in items:
        found |= item.facets.keys()
        found |= {name for answer in item.answers for one in answer.states for name in one.facets}
    return sorted(found, key=lambda name: (
        FACETS_FIRST.index(name) if name in FACETS_FIRST else len(FACETS_FIRST), name
    ))  # fmt: skip


def _item(item: Item, texts: _Texts) -> Mapping[str, Any]:
    return {
        "id": item.id,
        "p": None if item.prompt is None else texts.of(item.prompt),
        "f": _facets(item.facets),
        "b": _blocks(item.blocks, texts),
        "a": [
            {
                "c": answer.condition,
                "t": None if answer.text is None else texts.of(answer.text),
                "m": [[utf16(answer.text or "", place), what] for place, what in answer.marks],
                "s": [
                    {"f": _facets(one.facets), "b": _blocks(one.blocks, texts)}
                    for one in answer.states
                ],
            }
            for answer in item.answers
        ],
    }


def _facets(facets: Facets) -> Mapping[str, list[str]]:
    return {name: list(as_tuple(value)) for name, value in facets.items()}


def _blocks(blocks: Sequence[Block], texts: _Texts) -> list[list[Any]]:
    return [[block.title, block.kind, texts.of(block.text)] for block in blocks]


def utf16(text: str, place: int) -> int:
    """Position in UTF-16 units, which scripts count, of a position in characters."""
    return len(text[:place].encode("utf-16-le", "surrogatepass")) // 2
