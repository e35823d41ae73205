"""Labels that somebody else made, read from a file: never made up, never mixed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals.judges.labels import JudgeId, Label, OnLabel, Question, labelled
from models.errors import UserError
from models.fingerprint import file_sha256


class RecordedJudge:
    """See :class:`evals.judges.labels.Judge`.

    The file is JSON Lines, ``{"question_id", "instrument", "value"}`` a line, optionally with
    ``text_sha256`` and ``prompt_sha256``: a label of another text, or of another wording of the
    instrument, is an error, not a label. Lines of a run's labels say who judged (``judge``):
    labels of two judges are not mixed, and a line whose ``status`` says that there is no label
    holds none.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError with file and line for anything else, or a label that occurs twice."""
        self._path = path
        self._values: dict[tuple[str, str], tuple[Any, str | None, str | None]] = {}
        self._made_by: str | None = None
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            version = file_sha256(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"--judge recorded:{path}: cannot be read ({reason})") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._read(line, number)
        if not self._values:
            raise UserError(f"--judge recorded:{path}: holds no labels")
        self.id = JudgeId("recorded", path.name, version)

    def describe(self) -> dict[str, Any]:
        """How many labels there are, and how many do not say of which text they are."""
        unchecked = sum(sha256 is None for _, sha256, _ in self._values.values())
        return {"labels": len(self._values), "without_text_sha256": unchecked}

    def _read(self, line: str, number: int) -> None:
        where = f"{self._path}, line {number}"
        try:
            record = json.loads(line)
            key = (str(record["question_id"]), str(record["instrument"]))
            value = record["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{where}: give question_id, instrument and value ({error!r})"
            ) from None
        if record.get("status") in ("error", "missing"):
            return
        if record.get("judge") is not None:
            made_by = json.dumps(record["judge"], sort_keys=True)
            if self._made_by not in (None, made_by):
                raise UserError(f"{where}: of another judge than lines before; give one judge's")
            self._made_by = made_by
        if key in self._values:
            raise UserError(f"{where}: {key[0]} has a second label of {key[1]}")
        self._values[key] = (value, record.get("text_sha256"), record.get("prompt_sha256"))

    @property
    def instruments(self) -> tuple[str, ...]:
        """Instruments that the file has labels of."""
        return tuple(sorted({instrument for _, instrument in self._values}))

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """See :meth:`Judge.label`; a question without a record is ``missing``."""
        labels = []
        for question in questions:
            made = self._of(question)
            if on_label is not None:
                on_label(made)
            labels.append(made)
        return labels

    def _of(self, question: Question) -> Label:
        key = (question.id, question.instrument.name)
        if key not in self._values:
            return labelled(question, self.id, "missing", detail="not in the file")
        value, sha256, prompt = self._values[key]
        if prompt is not None and prompt != question.instrument.sha256:
            return labelled(question, self.id, "error", detail="the label is of another prompt")
        if sha256 is not None and sha256 != question.text_sha256():
            return labelled(question, self.id, "error", detail="the label is of another text")
        parsed = None if value is None else question.instrument.parse(str(value))
        if parsed is None:
            return labelled(question, self.id, "unparsed", detail=f"recorded: {value!r}"[:200])
        return labelled(question, self.id, "ok", parsed)
