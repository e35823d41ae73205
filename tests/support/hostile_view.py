"""A view in which every text is the same one, whatever it is."""

from __future__ import annotations

from arcs.report.view import (
    Answer,
    Block,
    Cell,
    Chart,
    ClaimCard,
    Item,
    Number,
    Plot,
    Point,
    Row,
    Series,
    State,
    Table,
    View,
)


def hostile_view(text: str) -> View:
    number = Number(0.5, "points", 0.4, 0.6, 0.95, 3)
    cell = Cell(text, (text,), number, {text or "x": text}, text)
    return View(
        title=text, kind=text, subtitle=text, finished=True,
        claims=tuple(ClaimCard(text, text, (text,), text, text, number, 0.5, {"a": text},
                               ((text, text),), minor) for minor in (False, True)),
        failures=(text,), notes=(text,),
        tables=(Table(text, text, (text,), (Row(text, (cell,), text),), text, text),),
        figures=(Plot(text, ((text, number, {"a": text}),), caption=text),
                 Chart(text, text, text, text,
                       (Series(text, (Point(0.0, number, {"a": text}, text),)),),
                       ((text, 0.5),), caption=text)),
        items=(Item(text, text, (Answer(text, text, (State({"outcome": text, text: text},
                    (Block(text, text),)),), ((0, text),)),), {"domain": text}),),
        made_with={text: {text: [text, {text: text}], "y": text}},
    )  # fmt: skip
