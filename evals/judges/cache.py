"""Labels once made, in an SQLite file that concurrent runs share."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from evals.judges.labels import Judge, JudgeId, Label, OnLabel, Question, require_distinct
from models.errors import UserError

_SCHEMA = """
create table if not exists labels (
    judge text not null, prompt text not null, text text not null, attempt integer not null,
    label text not null, made real not null, primary key (judge, prompt, text, attempt)
) without rowid
"""
WAIT_SECONDS = 60.0
"""How long one run waits for another's write."""


class LabelCache:
    """Labels with status ``ok`` or ``unparsed``, by judge, prompt hash and text hash.

    Failures are not kept: they are asked again. Every call opens the file for itself, so that
    threads and processes may share one.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file cannot be used."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None
        until = time.monotonic() + WAIT_SECONDS
        while True:  # changing to WAL does not wait for another that does
            try:
                with self._open() as db:
                    db.execute("pragma journal_mode = wal")
                    db.execute(_SCHEMA)
                    db.execute(
                        "select judge, prompt, text, attempt, label, made from labels limit 1"
                    )
                return
            except UserError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def get(self, judge: JudgeId, question: Question, attempt: int = 0) -> Label | None:
        """The stored label of ``question``, under its own id."""
        with self._open() as db:
            row = db.execute(
                "select label from labels where judge = ? and prompt = ? and text = ? and "
                "attempt = ?",
                self._key(judge, question, attempt),
            ).fetchone()
        if row is None:
            return None
        try:
            return Label.from_json({**json.loads(row[0]), "question_id": question.id})
        except (ValueError, TypeError, KeyError):  # of another version: asked again, once
            with self._open() as db:
                db.execute(
                    "delete from labels where judge = ? and prompt = ? and text = ? and "
                    "attempt = ? and label = ?",
                    (*self._key(judge, question, attempt), row[0]),
                )
            return None

    def put(self, question: Question, label: Label, attempt: int = 0) -> None:
        """Keep ``label``; the first of two runs that made one at a time stays."""
        if label.status not in ("ok", "unparsed"):
            return
        with self._open() as db:
            db.execute(
                "insert or ignore into labels values (?, ?, ?, ?, ?, ?)",
                (*self._key(label.judge, question, attempt), json.dumps(label.to_json()),
                 time.time()),
            )  # fmt: skip

    @staticmethod
    def _key(judge: JudgeId, question: Question, attempt: int) -> tuple[str, str, str, int]:
        identity = json.dumps([judge.kind, judge.name, judge.version])
        return identity, question.instrument.sha256, question.text_sha256(), attempt

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self._path, timeout=WAIT_SECONDS)
            try:
                with db:  # commits, or rolls back
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"{self._path}: the cache of labels cannot be used ({error}); move it away or give "
            "another with --judge-cache"
        )


def tell_answered(judge: Judge) -> None:
    """Labels of ``judge`` are known: it has answered before."""
    tell = getattr(judge, "answered_before", None)
    if tell is not None:
        tell()


class CachedJudge:
    """A judge that is asked only what it has not been asked before."""

    def __init__(self, judge: Judge, cache: LabelCache, *, attempt: int = 0) -> None:
        """``attempt`` tells repeats apart, where consistency is what is measured."""
        self.id = judge.id
        self._judge, self._cache, self._attempt = judge, cache, attempt

    def answered_before(self) -> None:
        """Hand on to a judge that makes a difference of it (:class:`evals.judges.api.ApiJudge`)."""
        tell_answered(self._judge)

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """See :meth:`Judge.label`; what was known comes first."""
        require_distinct(questions)
        found: dict[tuple[str, str], Label] = {}
        asked: list[Question] = []
        for question in questions:
            known = self._cache.get(self.id, question, self._attempt)
            if known is None:
                asked.append(question)
                continue
            found[question.key] = known
            if on_label is not None:
                on_label(known)
        if found:
            self.answered_before()
        by_key = {question.key: question for question in asked}

        def keep(label: Label) -> None:
            self._cache.put(by_key[label.key], label, self._attempt)
            if on_label is not None:
                on_label(label)

        if asked:
            for label in self._judge.label(asked, on_label=keep):
                found[label.key] = label
        return [found[question.key] for question in questions]
