"""Progress for people, on stderr: bars with rate and ETA on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_SECONDS = 15.0


class Bar(Protocol):
    """One phase's progress."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count ``amount`` units as done; ``note`` is shown beside the bar."""


class Reporter:
    """Says what is going on, on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
        """Show progress over ``total`` units of which ``done`` were finished earlier."""
        if self.console.is_terminal:
            with _terminal_bar(self.console, label, total, unit, done) as bar:
                yield bar
        else:
            yield _LineBar(self, label, total, unit, done)


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self._unit}/s", style="cyan")


@contextmanager
def _terminal_bar(console: Console, label: str, total: int, unit: str, done: int) -> Iterator[Bar]:
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, completed=done, note="")

        class _Bar:
            def advance(self, amount: int = 1, note: str = "") -> None:
                progress.update(task, advance=amount, note=note)

        yield _Bar()


class _LineBar:
    """Where there is no terminal (CI, a log file): a line now and then, and one at the end."""

    def __init__(self, reporter: Reporter, label: str, total: int, unit: str, done: int) -> None:
        self._reporter, self._label, self._total, self._unit = reporter, label, total, unit
        self._done = self._first = done
        self._begun = self._spoke = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._spoke < LINE_EVERY_SECONDS and self._done < self._total:
            return
        self._spoke = now
        rate = (self._done - self._first) / max(now - self._begun, 1e-9)
        left = (self._total - self._done) / rate if rate > 0 else float("inf")
        eta = f"{left:.0f} s left" if left != float("inf") else "ETA unknown"
        self._reporter.say(
            f"{self._label}: {self._done:g}/{self._total:g} {self._unit}, "
            f"{rate:.1f} {self._unit}/s, {eta}{'; ' + note if note else ''}"
        )


def stdout_is_terminal() -> bool:
    """Whether a person is reading standard output."""
    return sys.stdout.isatty()
