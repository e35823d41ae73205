"""Real HTTP servers on loopback that speak the chat protocol, well or badly."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any, dict[str, str]]
"""Status, body (a string is sent as it is), headers."""


def said(
    text: str | None,
    tokens: tuple[int, int] | None = (100, 2),
    *,
    reason: str | None = "stop",
    thoughts: str | None = None,
) -> Answer:
    """A good answer; ``tokens`` None: none are reported."""
    message = {"role": "assistant", "content": text}
    if thoughts is not None:
        message["reasoning_content"] = thoughts
    body: dict[str, Any] = {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }  # fmt: skip
    if tokens is not None:
        usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
        body["usage"] = {**usage, "total_tokens": sum(tokens)}
    return 200, body, {}


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[tuple[str, list[Any]]]:
    """A server whose n-th request (from 0) gets ``answer(n, body)``; yields URL and requests."""
    seen: list[Any] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(seen)
                seen.append((body, self.headers.get("authorization"), time.monotonic()))
            status, content, headers = answer(number, body)
            sent = content if isinstance(content, str) else json.dumps(content)
            try:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sent.encode())
            except OSError:
                pass  # the client has hung up

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


_WORDS = ("amber", "bowl", "careful", "dough", "early", "fold", "gentle", "handle", "iron", "juice",
          "kettle", "ladle", "mellow", "notch", "oven", "patient", "quiet", "ripple", "simmer",
          "tender", "under", "vessel", "whisk", "yellow", "zest", "anchor", "basil", "copper",
          "drizzle", "edge", "flour", "grain", "herb", "island", "jar", "knife", "lemon", "marble",
          "needle", "olive", "paper", "quince", "rustic", "salt")  # fmt: skip
PLANTED = "swapped"
"""A word in every answer that the scripted teacher planted errors in."""


def teacher(body: dict[str, Any]) -> str:
    """What a scripted, able teacher says to a question of arcs/teachers/data/stages.toml."""
    asked = body["messages"][-1]["content"]
    if "----- answer A -----" in asked:
        first = asked.split("----- answer A -----")[1].split("----- answer B -----")[0]
        return "B" if PLANTED in first else "A"
    array = re.search(r"(?:Write|Give) (\d+) (?:different questions|messages)", asked)
    if array:
        return json.dumps([f"{_text(f'{asked}{i}', 12)}?" for i in range(int(array[1]))])
    text = _text(asked, 60)
    if "End with a line that is either VERDICT" in asked:
        return f"{text}\nVERDICT: WRONG"
    if "with exactly these changes" in asked:
        return f"{text} {PLANTED}."
    if "why there is no single right answer" in asked:
        return f"It depends on the cook, and nobody can settle it. {text}"
    return text


def _text(key: str, n: int) -> str:
    """``n`` words that differ with ``key``, in sentences."""
    drawn = random.Random(hashlib.sha256(key.encode()).hexdigest())
    words = [f"{drawn.choice(_WORDS)}{drawn.choice(_WORDS)}" for _ in range(n)]
    parts = [" ".join(words[i : i + 10]).capitalize() for i in range(0, n, 10)]
    return ". ".join(parts) + ("." if n > 12 else "")
