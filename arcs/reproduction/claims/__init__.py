"""The paper's claims, judged from its published data alone."""

from __future__ import annotations

from arcs.reproduction.claims.table import PaperClaim, Stands, paper_claims

__all__ = ["PaperClaim", "Stands", "paper_claims"]
