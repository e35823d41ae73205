"""How ``--judge`` and ``--labels`` are written: where a run's labels come from.

Nothing heavy is imported here, so that a settings model may use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from models.errors import UserError

JudgeKind = Literal["lexical", "gguf", "api", "recorded"]
Measured = Literal["execution", "exact-match", "meter"]
"""What labels without a judge: there is nothing to validate."""

EMBEDDED = "SmolLM2-135M-Instruct"
JUDGE_FORMS = "lexical, gguf, gguf:MODEL, gguf:MODEL#QUANT, api:URL#MODEL or recorded:FILE"
LABEL_FORMS = f"{', '.join(get_args(Measured))} or judge:JUDGE, where JUDGE is {JUDGE_FORMS}"


@dataclass(frozen=True)
class JudgeSource:
    """A judge as it is named on the command line; :func:`arcs.judging.opening.open_judge` opens it.

    ``str()`` gives its one spelling, which :func:`parse_judge` reads back.
    """

    kind: JudgeKind
    model: str | None = None
    """gguf: a known name, hub id or path (a .gguf file too). api: what the endpoint calls it."""
    quant: str | None = None
    """gguf: how the model is quantised; None: q8_0, or a .gguf file as it is."""
    url: str | None = None
    file: Path | None = None

    def __str__(self) -> str:
        if self.kind == "gguf":
            return f"gguf:{self.model}" + (f"#{self.quant}" if self.quant else "")
        if self.kind == "api":
            return f"api:{self.url}#{self.model}"
        return f"recorded:{self.file}" if self.kind == "recorded" else "lexical"


@dataclass(frozen=True)
class LabelSource:
    """What decides right or wrong, asserted or hedged."""

    kind: Measured | Literal["judge"]
    judge: JudgeSource | None = None
    """Of kind ``judge`` only."""

    @property
    def needs_validation(self) -> bool:
        """Whether a claim on these labels is INVALID unless a judge reaches its bar."""
        return self.judge is not None

    def __str__(self) -> str:
        return f"judge:{self.judge}" if self.judge is not None else self.kind


def parse_judge(text: str, *, flag: str = "--judge") -> JudgeSource:
    """Read one of JUDGE_FORMS. Raises UserError naming ``flag`` for anything else."""
    kind, _, rest = text.strip().partition(":")
    if kind == "lexical" and not rest:
        return JudgeSource("lexical")
    if kind == "gguf":
        model, _, quant = rest.rpartition("#") if "#" in rest else (rest, "", "")
        return JudgeSource("gguf", _local(model) or EMBEDDED, quant or None)
    if kind == "api":
        url, _, model = rest.rpartition("#")
        if url and model:
            return JudgeSource("api", model, url=url)
        raise UserError(f"{flag} {text}: give api:URL#MODEL, e.g. api:http://localhost:8000/v1#m")
    if kind == "recorded" and rest:
        return JudgeSource("recorded", file=Path(rest).expanduser().resolve())
    raise UserError(f"{flag} {text}: give {JUDGE_FORMS}")


def parse_labels(text: str, *, flag: str = "--labels") -> LabelSource:
    """Read one of LABEL_FORMS. Raises UserError naming ``flag`` for anything else."""
    kind, _, rest = text.strip().partition(":")
    for known in get_args(Measured):
        if text.strip() == known:
            return LabelSource(known)
    if kind == "judge" and rest:
        return LabelSource("judge", parse_judge(rest, flag=f"{flag} judge:"))
    raise UserError(f"{flag} {text}: give {LABEL_FORMS}")


def _local(model: str) -> str:
    """A path that is there becomes absolute: a run may be continued from another directory."""
    path = Path(model).expanduser()
    return str(path.absolute()) if model and path.exists() else model
