"""llama.cpp's shared library: loaded once, silenced, its last messages kept."""

from __future__ import annotations

import ctypes
import re
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from models.errors import UserError

_ERROR, _CONTINUATION = 4, 5
"""ggml's log levels: 4 is an error, 5 continues the line before."""


@dataclass
class LogTail:
    """The last lines llama.cpp wrote; nothing of it reaches the terminal."""

    lines: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=2000))

    def add(self, level: int, text: str) -> None:
        """Keep one message under its level."""
        if level == _CONTINUATION and self.lines:
            before, start = self.lines.pop()
            self.lines.append((before, start + text))
        else:
            self.lines.append((level, text))

    def clear(self) -> None:
        """Forget everything, before an operation whose messages are of interest."""
        self.lines.clear()

    def errors(self) -> str:
        """The first of the kept error lines: llama.cpp reports causes before consequences."""
        found = [text.strip() for level, text in self.lines if level == _ERROR and text.strip()]
        return "; ".join(found[:2]) or "llama.cpp gave no reason"

    def search(self, pattern: str) -> list[tuple[str, ...]]:
        """Groups of every match of ``pattern`` in the kept lines."""
        expression = re.compile(pattern)
        matches = (expression.search(text) for _, text in self.lines)
        return [match.groups() for match in matches if match]


@dataclass(frozen=True)
class Library:
    """The ``llama_cpp`` module's low-level functions and the log beside them."""

    api: Any
    log: LogTail
    callback: Any
    """Referenced here because llama.cpp keeps a bare pointer to it."""

    @property
    def version(self) -> str:
        """llama-cpp-python's version, which fixes llama.cpp's."""
        return str(self.api.__version__)

    @property
    def system_info(self) -> str:
        """The instruction sets and libraries llama.cpp uses here."""
        return str(self.api.llama_print_system_info().decode()).strip(" |")

    @property
    def supports_gpu(self) -> bool:
        """Whether this build can offload layers."""
        return bool(self.api.llama_supports_gpu_offload())


@cache
def library() -> Library:
    """Load llama.cpp. Raises UserError when it is not installed or cannot be loaded."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"the llama.cpp engine is not available ({error}); "
            f"install it with: pip install 'threearc[llama]'"
        ) from error
    log = LogTail()

    def keep(level: int, text: bytes, _: object) -> None:
        log.add(level, text.decode("utf-8", "replace"))

    callback = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return Library(llama_cpp, log, callback)
