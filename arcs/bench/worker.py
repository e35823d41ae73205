"""A library's own ``generate`` in a process of its own, taking turns with llama.cpp in ours.

The BLAS that makes MLX fast makes torch slow, and torch's threads and llama.cpp's get in each
other's way. One line of JSON asks, one answers; every other output goes to stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Self, TextIO

from models.errors import UserError

Ids = tuple[int, ...]
_CODE = "from arcs.bench.worker import main; main()"


class LibraryProcess:
    """The parent's side. Raises UserError with the child's own reason when it cannot work."""

    def __init__(self, engine: str, model: str, threads: int) -> None:
        self.engine = engine
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, engine, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(counts, str(threads))},
        )
        try:
            self.described: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Ids]:
        """Exactly ``max_tokens`` greedy ids a prompt, all prompts in one batch."""
        asked = {"prompts": [list(prompt) for prompt in prompts], "max_tokens": max_tokens}
        return [tuple(text) for text in self._ask(asked)["texts"]]

    def cpu_seconds(self) -> float:
        """Processor time of the child so far."""
        return float(self._ask({})["cpu"])

    def close(self) -> None:
        """End the child."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _answer says that it has ended
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"the process of {self.engine} ended (exit status {self._process.wait()}); its own "
                "message is above: leave it out with --engine, or use fewer --prompts"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.engine}: {answer['error']}")
        return answer


def main() -> None:
    """The child: open the model as the library does, then answer until stdin ends."""
    engine, model = sys.argv[1:]
    from backends import wants_fast_blas
    from backends.blas import restart_with_fast_blas

    if wants_fast_blas(engine):
        restart_with_fast_blas()
    # libraries print where they like: only answers may reach the parent's pipe
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        _serve(engine, model, answers)
    except UserError as error:
        _reply(answers, {"error": " ".join(str(error).split())})


def _serve(engine: str, model: str, answers: TextIO) -> None:
    import importlib

    from backends import default_dtype, open_backend
    from backends.blas import preloaded
    from models.store import prepare

    directory, dtype = prepare(model), default_dtype(engine)
    with open_backend(engine, directory, dtype=dtype) as opened:
        plain = importlib.import_module(f"backends.{engine}.plain").plain_of(opened, directory)
        _reply(answers, {"dtype": dtype, "preloaded_blas": preloaded(), **opened.describe()})
        for line in sys.stdin:
            asked = json.loads(line)
            if asked:
                texts = plain.generate(asked["prompts"], asked["max_tokens"])
                _reply(answers, {"texts": texts})
            else:
                _reply(answers, {"cpu": time.process_time()})


def _reply(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
