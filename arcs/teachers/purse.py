"""One budget for all endpoints of a run, over all its sittings."""

from __future__ import annotations

import threading

from evals.endpoint import BudgetSpent


class Purse:
    """See :class:`evals.endpoint.Purse`: what is spent never passes the budget.

    The most that a request can cost (a token for each byte sent, and all of ``max_tokens``) is set
    aside before it is sent. Where an answer's cost is not known, all of it stays spent.
    """

    def __init__(self, budget: float, spent: float) -> None:
        self.budget, self.spent = budget, spent
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
            self._reserved += most
            self._under_way += 1

    def settle(self, reserved: float | None, spent: float | None) -> None:
        """Replace what was set aside by what the request did cost."""
        with self._changed:
            self._under_way -= 1
            # sums of floats do not come back to zero by themselves
            self._reserved = self._reserved - (reserved or 0.0) if self._under_way else 0.0
            self.spent += (reserved or 0.0) if spent is None else spent
            self._changed.notify_all()
