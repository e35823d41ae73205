"""What is used of mlx-lm, imported here and nowhere else.

Importing ``mlx_lm.utils`` lowers this process's limit of open files to 2048, the hard limit
to 4096. An ordinary user cannot raise a hard limit again, so it is kept from being lowered.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def open_file_limit_kept() -> Iterator[None]:
    """Ignore calls of ``resource.setrlimit`` for open files; all other limits can be set."""
    original = resource.setrlimit

    def setrlimit(kind: int, limits: tuple[int, int], /) -> None:
        if kind != resource.RLIMIT_NOFILE:
            original(kind, limits)

    vars(resource)["setrlimit"] = setrlimit
    try:
        yield
    finally:
        vars(resource)["setrlimit"] = original


with open_file_limit_kept():
    from mlx_lm.models import cache as _cache
    from mlx_lm.tuner.lora import LoRALinear as _LoRALinear
    from mlx_lm.tuner.utils import load_adapters as _load_adapters
    from mlx_lm.utils import load_model as _load_model

caches: Any = _cache
LoRALinear: Any = _LoRALinear
load_adapters: Any = _load_adapters
load_model: Any = _load_model
