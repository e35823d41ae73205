"""A teacher that is a model of ours: a GGUF through llama.cpp, or a directory on MLX or torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arcs.teachers.asking import Answer, OnAnswer, OnFailure, Question
from arcs.teachers.roster import Teacher
from backends.interface import Completion, LanguageModel, Prompt, Sampling
from evals.humaneval.thinking import drop_thoughts
from models.chat import ChatEncoder, Message

if TYPE_CHECKING:
    from models.directory import ModelDirectory

CONTEXT = 4096
"""Ids of a local teacher's prompt and answer together; a shorter model context wins."""
WIDTH = 8
"""Sequences decoded together."""


class EngineTeacher:
    """See :class:`Asked`: a model on an engine, opened when it is first asked."""

    def __init__(
        self,
        teacher: Teacher,
        opened: Callable[[], tuple[LanguageModel, ChatEncoder, int, dict[str, Any]]],
        *,
        seed: int,
    ) -> None:
        """``opened`` returns model, encoder, context (ids) and identity."""
        self._teacher, self._opened, self._seed = teacher, opened, seed
        self._model: tuple[LanguageModel, ChatEncoder, int, dict[str, Any]] | None = None

    def answer(
        self, questions: Sequence[Question], keep: OnAnswer, fail: OnFailure, stop: threading.Event
    ) -> None:
        """See :meth:`Asked.answer`. Questions with the same limits are decoded together."""
        groups: dict[tuple[float, int], list[Question]] = {}
        for question in questions:
            groups.setdefault((question.temperature, question.max_tokens), []).append(question)
        for (temperature, max_tokens), group in groups.items():
            if stop.is_set():
                return
            sampling = Sampling(
                temperature=temperature, seed=self._seed,
                repetition_penalty=self._teacher.repetition_penalty, min_p=self._teacher.min_p,
            )  # fmt: skip
            self._decode(group, max_tokens, sampling, keep, fail)

    def _decode(
        self,
        group: Sequence[Question],
        max_tokens: int,
        sampling: Sampling,
        keep: OnAnswer,
        fail: OnFailure,
    ) -> None:
        model, encoder, context, _ = self.open()
        prompts, by_job, think_open = [], {}, {}
        for question in group:
            encoded = encoder.encode_prompt(_clean(question.messages, encoder))
            if len(encoded.ids) + max_tokens > context:
                said = f"prompt of {len(encoded.ids)} ids and {max_tokens} more: {context} fit"
                fail(question, said, False)
                continue
            prompts.append(Prompt(question.job, encoded.ids))
            by_job[question.job], think_open[question.job] = question, encoded.think_open

        def done(completion: Completion) -> None:
            text = encoder.decode(completion.ids)
            said = drop_thoughts(text, think_open=think_open[completion.item_id])
            keep(
                by_job[completion.item_id],
                Answer(
                    text=said.text.strip(),
                    thoughts=said.thoughts or None,
                    finish_reason=completion.finish_reason,
                    unclosed=said.unclosed,
                    model=None,
                    input_tokens=len(completion.prompt_ids),
                    output_tokens=len(completion.ids),
                    usd=None,
                ),
            )

        if prompts:
            model.generate(
                prompts, max_tokens=max_tokens, stop_ids=encoder.stop_ids, on_done=done,
                sampling=sampling,
            )  # fmt: skip

    def open(self) -> tuple[LanguageModel, ChatEncoder, int, dict[str, Any]]:
        """The model, opened once."""
        if self._model is None:
            self._model = self._opened()
        return self._model

    def describe(self) -> dict[str, Any]:
        """See :meth:`Asked.describe`. Opens the model: its hashes are what it is."""
        return {"kind": self._teacher.kind, "licence": self._teacher.licence, **self.open()[3]}


def _clean(messages: Sequence[Message], encoder: ChatEncoder) -> list[Message]:
    """Messages in which nothing that another model wrote opens or closes a turn."""
    return [replace(one, content=encoder.without_special_tokens(one.content)) for one in messages]


@contextmanager
def opened_gguf(
    teacher: Teacher, directory: ModelDirectory, say: Callable[[str], None]
) -> Iterator[tuple[LanguageModel, ChatEncoder, int, dict[str, Any]]]:
    """A GGUF through our llama.cpp engine."""
    from backends.llamacpp import require_installed
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf
    from models.fingerprint import file_sha256
    from models.geometry import read_geometry
    from models.store import cache_root

    require_installed()
    quant = teacher.quant or "q8_0"
    context = min(CONTEXT, read_geometry(directory.path).context_length)
    path = evaluation_gguf(directory, quant, cache_root() / "gguf", say=say)
    with open_gguf(path, context=context, width=WIDTH, threads=teacher.threads) as model:
        identity = {
            "model": directory.name, "quant": quant, "gguf_sha256": file_sha256(path),
            "fingerprint": directory.fingerprint, "context": context, "width": WIDTH,
            "repetition_penalty": teacher.repetition_penalty, "min_p": teacher.min_p,
        }  # fmt: skip
        yield model, ChatEncoder(directory), context, identity


@contextmanager
def opened_backend(
    teacher: Teacher, directory: ModelDirectory, say: Callable[[str], None]
) -> Iterator[tuple[LanguageModel, ChatEncoder, int, dict[str, Any]]]:
    """A Hugging Face directory on MLX or torch."""
    from backends import choose_backend, default_dtype, open_backend
    from models.geometry import read_geometry

    del say
    backend = choose_backend(teacher.backend or "auto")
    dtype = teacher.dtype or default_dtype(backend)
    model = open_backend(backend, directory, dtype=dtype)
    context = min(CONTEXT, read_geometry(directory.path).context_length)
    identity = {
        "model": directory.name, "backend": backend, "dtype": dtype, "context": context,
        "fingerprint": directory.fingerprint, "repetition_penalty": teacher.repetition_penalty,
        "min_p": teacher.min_p,
    }  # fmt: skip
    yield model, ChatEncoder(directory), context, identity
