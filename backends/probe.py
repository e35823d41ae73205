"""What one engine can do here, tried in a process of its own: ``python -m backends.probe ENGINE``.

The document goes to stdout, what is being tried to stderr (see :mod:`backends.probing`, which
starts this). Engines may abort the process, and are known to.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any

from backends.probe_checks import DTYPES, Progress
from backends.probing import ENGINES


def examine(engine: str, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Import the engine and try it. Returns its document, with ``status`` and ``reason``.

    ``missing``: a package is not installed; ``broken``: it is, and cannot be imported.
    """
    module = importlib.import_module(f"backends.{engine}.probe")
    progress = Progress(skip)
    progress.begin("import", engine)
    try:
        return {"status": "ok", "reason": None, **module.probe(progress)}
    except ModuleNotFoundError as error:
        top = (error.name or "").split(".")[0]
        status = "missing" if top in ENGINES[engine].packages else "broken"
        return {"status": status, "reason": _line(error)}
    except (ImportError, OSError) as error:
        return {"status": "broken", "reason": _line(error)}


def main(argv: list[str] | None = None) -> None:
    """Print one JSON document; everything else that is printed lands on stderr."""
    parser = argparse.ArgumentParser(prog="python -m backends.probe", description=__doc__)
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("--json", action="store_true", help="one line instead of indented")
    parser.add_argument("--without", action="append", choices=DTYPES, default=[])
    asked = parser.parse_args(argv)
    # engines' native code prints on file descriptor 1 at will, which is the document's
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    document = examine(asked.engine, frozenset(asked.without))
    out.write(json.dumps(document, indent=None if asked.json else 1) + "\n")
    out.close()


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


if __name__ == "__main__":
    main()
    sys.stderr.flush()
