"""An adapter on the base: checked before a model is opened, and part of whose states are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from backends.adapter_files import read_adapter
from backends.adapters.export import require_fits
from models.directory import ModelDirectory
from models.errors import UserError


@dataclass(frozen=True)
class Edit:
    """A LoRA adapter that fits the base."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Its folder; every run of arc1 calls its own ``adapter``, so with the run's before it."""
        return "/".join(self.path.parts[-2:]) if self.path.name == "adapter" else self.path.name


def edit_of(path: Path | None, directory: ModelDirectory, *, gguf: bool) -> Edit | None:
    """Read and check an adapter. Raises UserError for whatever would stop its being attached."""
    if path is None:
        return None
    stored = read_adapter(path)
    if not stored.contents.config.scale:
        raise UserError(
            f"--adapter {path}: lora_alpha is 0, so the adapter changes nothing; train it again"
        )
    require_fits(stored, directory)
    if gguf:
        from backends.llamacpp.adapter import require_convertible

        require_convertible(path, directory)
    return Edit(path, stored.sha256)


def name_of(directory: ModelDirectory, edit: Edit | None) -> str:
    """Of the model whose states are read."""
    return directory.name if edit is None else f"{directory.name} + {edit.name}"


def fingerprint_of(directory: ModelDirectory, edit: Edit | None) -> str:
    """Of all weights that made answers and states: the base's alone is not an edited model's."""
    if edit is None:
        return directory.fingerprint
    return hashlib.sha256(f"{directory.fingerprint}+{edit.sha256}".encode()).hexdigest()
