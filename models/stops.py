"""Stop ids as a model directory states them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import UserError


def configured_stop_ids(path: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ascending end-of-text ids of generation_config.json, config.json and the tokenizer."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        found |= _eos_ids(path / name)
    if tokenizer.eos_token_id is not None:
        found.add(int(tokenizer.eos_token_id))
    return tuple(sorted(found))


def _eos_ids(path: Path) -> set[int]:
    if not path.is_file():
        return set()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        holders = [config, config.get("text_config") or {}]
        values = [holder.get("eos_token_id") for holder in holders]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read; fetch or save the model again") from error
    ids: set[int] = set()
    for value in values:
        ids |= {i for i in (value if isinstance(value, list) else [value]) if type(i) is int}
    return ids
