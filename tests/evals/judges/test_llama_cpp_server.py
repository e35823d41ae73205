"""The api judge against llama-cpp-python's own OpenAI-compatible server with the embedded model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

pytest.importorskip("openai")
pytest.importorskip("llama_cpp")
pytest.importorskip("starlette_context", reason="llama-cpp-python[server] is in the test extra")

from evals.judges.api import ApiJudge, ApiSettings
from evals.judges.instruments import COVERAGE, DELIVERY
from evals.judges.labels import Question
from models.directory import ModelDirectory
from models.errors import UserError


@pytest.fixture(scope="module")
def server(smollm_directory: ModelDirectory) -> Iterator[str]:
    """Base URL of a real server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", str(smollm_directory.gguf),
        "--host", "127.0.0.1", "--port", str(port), "--n_ctx", "1024", "--n_threads", "1",
        "--n_threads_batch", "1", "--verbose", "false",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ}
    )
    url, until = f"http://127.0.0.1:{port}/v1", time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.2)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_a_real_server_answers_and_counts_its_tokens(server: str) -> None:
    judge = ApiJudge(ApiSettings(base_url=server, model="any", concurrency=2, max_tokens=8))
    fields = {"question": "What melts?", "response": "Butter, at 32 °C.", "claim": "Butter melts."}
    given = [Question("a", COVERAGE, fields), Question("b", DELIVERY, fields)]
    labels = judge.label(given)
    assert [one.question_id for one in labels] == [one.id for one in given]
    # a small model may answer anything; what it says is a value or is kept as unparsed
    for question, label in zip(given, labels, strict=True):
        assert label.status in ("ok", "unparsed"), label.detail
        assert label.value in (None, *question.instrument.values)
    assert judge.usage.requests == 2 and judge.usage.retries == judge.usage.unreported == 0
    assert judge.usage.input_tokens > 200 and 2 <= judge.usage.output_tokens <= 16
    assert judge.label(given) == labels  # temperature 0


def test_a_question_that_is_too_long_for_it_is_that_questions_error(server: str) -> None:
    judge = ApiJudge(ApiSettings(base_url=server, model="any", concurrency=1, tries=2, back_off=0))
    short = Question("short", DELIVERY, {"question": "2 + 2?", "response": "It is 4."})
    long = Question("long", DELIVERY, {"question": "q", "response": "word " * 3000})
    first, second = judge.label([short, long])
    assert first.status in ("ok", "unparsed")
    assert second.status == "error" and "HTTP" in second.detail


def test_a_path_that_it_does_not_serve_is_one_line(server: str) -> None:
    wrong = ApiJudge(ApiSettings(base_url=server + "/nothing", model="any"))
    with pytest.raises(UserError, match=r"HTTP 404.*check URL and model"):
        wrong.label([Question("q", COVERAGE, {"question": "q", "response": "r", "claim": "c"})])
