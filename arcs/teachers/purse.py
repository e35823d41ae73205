"""One budget for all endpoints of a run, over all its sittings."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.runs import PAYING, JsonLines, RunDirectory
from evals.endpoint import BudgetSpent
from models.errors import UserError

JOURNAL = "purse.jsonl"
"""A line when money is set aside, one when its request ends: what a kill leaves set aside may have
been paid, and so has what a request cost that never answered."""


@dataclass(frozen=True)
class Booked:
    """US dollars of stored answers."""

    priced: float
    """Of sittings that had prices, and so kept a journal."""
    unpriced: float
    """Of sittings that had none, at today's prices: no journal has them."""


def keep_budget(run: RunDirectory, budget: float) -> None:
    """Keep a budget with the run, so that a sitting without the flag has the same."""
    run.write_json(PAYING, {"budget": budget})


def kept_budget(run: Path) -> dict[str, Any]:
    """The setting ``budget`` of the last sitting of a run that had one; {} before there was one.

    Raises UserError where it cannot be read.
    """
    path = run / PAYING
    if not path.exists():
        return {}
    try:
        return {"budget": float(json.loads(path.read_text(encoding="utf-8"))["budget"])}
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path}: cannot be read; remove it and give --budget again") from None


def purse_of(run: RunDirectory, budget: float | None, booked: Booked) -> Purse:
    """The run's purse as earlier sittings left it. ``booked``: what the stored answers cost.

    Without a budget it keeps the books for a sitting that has one.
    """
    journal = run.json_lines(JOURNAL)
    spent = math.fsum(
        line.get("set_aside", 0.0) - line.get("freed", 0.0) + line.get("spent", 0.0)
        for line in journal.records
    )
    return Purse(
        math.inf if budget is None else budget, max(spent, booked.priced) + booked.unpriced, journal
    )


class Purse:
    """See :class:`evals.endpoint.Purse`: what is spent never passes the budget.

    The most that a request can cost (a token for each byte sent, and all of ``max_tokens``) is set
    aside before it is sent. Where an answer's cost is not known, all of it stays spent.
    """

    def __init__(self, budget: float, spent: float, journal: JsonLines | None = None) -> None:
        self.budget, self.spent, self._journal = budget, spent, journal
        self._reserved, self._under_way = 0.0, 0
        self._changed = threading.Condition()

    def reserve(self, amount: float | None) -> None:
        """Set ``amount`` aside, waiting for requests under way to settle where that can help.

        Raises BudgetSpent.
        """
        most = amount or 0.0
        with self._changed:
            while self.spent + self._reserved + most > self.budget:
                if not self._under_way:
                    raise BudgetSpent(
                        f"the budget of ${self.budget:.2f} is spent (${self.spent:.4f}, and the "
                        f"next request may cost ${most:.4f}); answers made so far are kept: raise "
                        "--budget and continue"
                    )
                self._changed.wait()
            self._write(set_aside=most)
            self._reserved += most
            self._under_way += 1

    def settle(self, reserved: float | None, spent: float | None) -> None:
        """Replace what was set aside by what the request did cost."""
        with self._changed:
            self._under_way -= 1
            # sums of floats do not come back to zero by themselves
            self._reserved = self._reserved - (reserved or 0.0) if self._under_way else 0.0
            paid = (reserved or 0.0) if spent is None else spent
            self.spent += paid
            self._write(freed=reserved or 0.0, spent=paid)
            self._changed.notify_all()

    def forget(self) -> None:
        """Remove a journal of requests that were refused, every one for nothing."""
        if self._journal is not None and not self.spent and not self._reserved:
            self._journal.path.unlink(missing_ok=True)

    def _write(self, **amounts: float) -> None:
        if self._journal is not None and any(amounts.values()):
            self._journal.append(amounts)
