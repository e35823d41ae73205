"""Readers: the paper's files, our runs, tables, and other tools' logs, as one kind of results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from arcs.audits.readers import config, evalplus, inspect_log, lm_eval, paper, run, tables
from arcs.audits.readers.options import ReadOptions
from arcs.audits.readers.source import candidates
from arcs.audits.results import Results
from models.errors import UserError

__all__ = ["ReadOptions", "read"]


def read(path: Path, options: ReadOptions | None = None) -> Results:
    """Read whatever is at ``path``: a file, or a folder of files of one format.

    The format is told by names and contents: an audit.toml, our runs, inspect_ai logs,
    lm-evaluation-harness samples, evalplus results, the paper's files, else tables. With
    ``options.columns`` the path is a table. Raises UserError where nothing can be read, or
    something is wrong with what is there.
    """
    options = options or ReadOptions()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    if not options.columns:
        for applies, reader in FORMATS:
            if applies(path):
                return reader(path)
    return tables.read(path, options)


def _has(applies: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """Whether a path is or holds a file to which something applies."""
    return lambda path: any(map(applies, candidates(path)))


FORMATS: tuple[tuple[Callable[[Path], object], Callable[[Path], Results]], ...] = (
    (config.applies, config.read),
    (run.runs_in, run.read),
    (_has(inspect_log.is_log), inspect_log.read),
    (_has(lm_eval.is_samples), lm_eval.read),
    (_has(evalplus.is_results), evalplus.read),
    (_has(evalplus.is_samples), evalplus.read),
    (paper.kinds_in, paper.read),
)
"""In this order: whether a reader applies to a path, and the reader."""
