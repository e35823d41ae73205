"""Open the judge that ``--judge`` names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.labels import JudgeSource
from arcs.progress import Reporter
from evals.judges.cache import CachedJudge, LabelCache
from evals.judges.labels import Judge, Label, Question
from evals.judges.lexical import LexicalJudge
from evals.judges.recorded import RecordedJudge
from models.errors import UserError

CONTEXT = 2048
"""Ids of a local judge's prompt; longer responses are cut, and the label says so."""

COSTS = ("api", "gguf")
"""Judges whose labels take time or money."""


@dataclass(frozen=True)
class JudgeOptions:
    """How a judge is asked; None: its default. Only ``max_tokens`` and ``threads`` can change a
    label."""

    threads: int | None = None
    """gguf: llama.cpp's."""
    max_tokens: int | None = None
    """api: of an answer, think text included."""
    concurrency: int | None = None
    timeout: float | None = None
    """Seconds without a byte."""
    tries: int | None = None
    requests_per_minute: float | None = None
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    budget_usd: float | None = None
    below_bar: bool | None = None
    """api: go on and pay for labels where it is below its bar, or was not held to it."""

    def given(self) -> dict[str, Any]:
        """What was set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@contextmanager
def open_judge(
    source: JudgeSource, reporter: Reporter, options: JudgeOptions | None = None
) -> Iterator[Judge]:
    """The judge, its model loaded. Raises UserError for options that mean nothing to it, and for
    whatever keeps it from being opened."""
    given = _options_of(source, options)
    threads = given.pop("threads", None)
    given.pop("below_bar", None)  # decided where it is validated
    if source.kind == "lexical":
        yield LexicalJudge()
    elif source.kind == "recorded":
        yield RecordedJudge(Path(str(source.file)))
    elif source.kind == "api":
        from evals.judges.api import ApiJudge, ApiSettings

        yield ApiJudge(ApiSettings(base_url=str(source.url), model=str(source.model), **given))
    else:
        with _local(source, threads, reporter) as local:
            yield local


def _options_of(source: JudgeSource, options: JudgeOptions | None) -> dict[str, Any]:
    """What was set. Raises UserError for what means nothing to this judge."""
    given = (options or JudgeOptions()).given()
    if given.get("threads") is not None and source.kind != "gguf":
        raise UserError(f"--judge-threads means nothing to a {source.kind} judge; leave it out")
    of_an_endpoint = [name for name in given if name != "threads"]
    if of_an_endpoint and source.kind != "api":
        flag = of_an_endpoint[0].replace("_", "-")
        raise UserError(f"--judge-{flag} means nothing to a {source.kind} judge; leave it out")
    return given


def cached(judge: Judge, cache: LabelCache | None, *, attempt: int = 0) -> Judge:
    """The judge in front of a cache, where asking costs something.

    The others cost nothing, and a recorded label depends on the question's id as well.
    """
    if cache is None or judge.id.kind not in COSTS:
        return judge
    return CachedJudge(judge, cache, attempt=attempt)


def check_judge(source: JudgeSource, reporter: Reporter, options: JudgeOptions) -> None:
    """Raise UserError for what would keep the judge from being opened, before work it is to judge.

    A local model is fetched but not loaded.
    """
    if source.kind == "gguf":
        from backends.llamacpp import require_installed
        from backends.llamacpp.quantise import check_quantisation
        from models.store import prepare

        _options_of(source, options)
        require_installed()
        check_quantisation(_quantisation(source))
        prepare(str(source.model), say=reporter.say)
        return
    with open_judge(source, reporter, options):
        pass


def ask(
    judge: Judge,
    questions: Sequence[Question],
    label: str,
    reporter: Reporter,
    *,
    cache: LabelCache | None = None,
    attempt: int = 0,
) -> list[Label]:
    """Labels of the questions, in their order, with a progress bar called ``label``."""
    asked = cached(judge, cache, attempt=attempt)
    with reporter.bar(label, len(questions), "labels") as bar:
        return asked.label(questions, on_label=lambda _: bar.advance(1))


def describe_judge(judge: Judge) -> dict[str, Any]:
    """Who judges, and how its labels are made, JSON-able."""
    said = getattr(judge, "describe", None)  # lexical and recorded judges are their id
    return {**vars(judge.id), **({} if said is None else said())}


def cache_for(source: JudgeSource, path: Path | None) -> LabelCache | None:
    """Where labels of this judge are kept: ``path``, or the user's own file where asking costs."""
    if path is None and source.kind not in COSTS:
        return None
    return LabelCache(path if path is not None else default_cache())


def default_cache() -> Path:
    """The SQLite file of labels that runs of one user share."""
    from models.store import cache_root

    return cache_root() / "judge-labels.sqlite"


@contextmanager
def _local(source: JudgeSource, threads: int | None, reporter: Reporter) -> Iterator[Judge]:
    from backends.llamacpp import require_installed
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf
    from evals.judges.gguf import GgufJudge
    from models.chat import ChatEncoder
    from models.fingerprint import file_sha256
    from models.geometry import read_geometry
    from models.store import cache_root, prepare

    require_installed()
    quant = _quantisation(source)
    directory = prepare(str(source.model), say=reporter.say)
    encoder = ChatEncoder(directory)
    context = min(CONTEXT, read_geometry(directory.path).context_length)
    path = evaluation_gguf(directory, quant, cache_root() / "gguf", say=reporter.say)
    with open_gguf(path, context=context, width=1, threads=threads) as opened:
        name = f"{directory.name} {quant}"
        yield GgufJudge(opened, encoder, name=name, sha256=file_sha256(path), context=context)


def _quantisation(source: JudgeSource) -> str:
    return source.quant or ("original" if str(source.model).endswith(".gguf") else "q8_0")
