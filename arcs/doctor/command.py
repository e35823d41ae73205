"""What ``threearc doctor`` does."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from arcs.doctor.examination import examine
from arcs.doctor.report import show


def start(*, as_json: bool) -> None:
    """Examine this machine and print what was found; exit status 1 when no engine works."""
    document = examine()
    if as_json:
        print(json.dumps(document, indent=1, sort_keys=True))
    else:
        show(document, Console(highlight=False))
    if not document["ok"]:
        sys.exit(1)
