"""A GGUF file and an adapter in llama.cpp's memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.llamacpp.library import Library, library
from models.errors import UserError
from models.gguf.inspect import check_gguf


@dataclass(frozen=True)
class Offload:
    """What of the model lies on a GPU, as llama.cpp reported it while loading."""

    layers: int
    of: int
    devices: tuple[str, ...]


def offload_attempts(gpu_layers: int, blocks: int, *, has_gpu: bool) -> tuple[int, ...]:
    """Numbers of layers to try to put on the GPU, the most first.

    ``gpu_layers`` of -1 asks for all that fit: all, then every eighth part less, down to none.
    A number given by the user is tried alone. ``blocks`` is the model's layer count; llama.cpp
    counts the output layer as one more.
    """
    if gpu_layers >= 0 or not has_gpu:
        return (gpu_layers,)
    fewer = (blocks * eighths // 8 for eighths in range(7, -1, -1))
    return (-1, *dict.fromkeys(fewer))


class NativeModel:
    """Owns llama.cpp's model and adapter handles; :meth:`close` frees both."""

    def __init__(self, path: Path, *, adapter: Path | None, gpu_layers: int) -> None:
        """Load ``path`` and ``adapter``. Raises UserError with llama.cpp's own reason."""
        self.library: Library = library()
        self.path = path
        self.adapter_path = adapter
        self.handle: Any = self._load(gpu_layers)
        self.adapter: Any = None
        self.offload = self._read_offload()
        if adapter is not None:
            try:
                self.adapter = self._load_adapter(adapter)
            except BaseException:
                self.close()
                raise
        api = self.library.api
        self.vocab = int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.handle)))
        self.layers = int(api.llama_model_n_layer(self.handle))
        self.n_ctx_train = int(api.llama_model_n_ctx_train(self.handle))
        self.file_type = str(api.llama_ftype_name(api.llama_model_ftype(self.handle)).decode())

    def close(self) -> None:
        """Free the model and its adapter; contexts must have been freed before."""
        if self.handle:
            self.library.api.llama_model_free(self.handle)  # frees its adapters as well
        self.handle = self.adapter = None

    def _load(self, gpu_layers: int) -> Any:
        file = check_gguf(self.path)  # llama.cpp may abort the process on a damaged file
        blocks = int(file.metadata.get(f"{file.architecture}.block_count", 0))
        api, log = self.library.api, self.library.log
        parameters = api.llama_model_default_params()
        reason = ""
        for layers in offload_attempts(gpu_layers, blocks, has_gpu=self.library.supports_gpu):
            parameters.n_gpu_layers = layers
            log.clear()
            handle = api.llama_model_load_from_file(str(self.path).encode(), parameters)
            if handle:
                return handle
            reason = reason or log.errors()
        raise UserError(
            f"llama.cpp cannot load {self.path} ({reason}); check the file, or make or download "
            f"it again"
        )

    def _load_adapter(self, adapter: Path) -> Any:
        check_gguf(adapter, kind="adapter")
        self.library.log.clear()
        handle = self.library.api.llama_adapter_lora_init(self.handle, str(adapter).encode())
        if not handle:
            raise UserError(
                f"llama.cpp cannot apply {adapter} to {self.path} "
                f"({self.library.log.errors()}); is the adapter for another model?"
            )
        return handle

    def _read_offload(self) -> Offload:
        log = self.library.log
        counts = log.search(r"offloaded (\d+)/(\d+) layers")
        devices = log.search(r"using device (\S+) \(([^)]*)\)")
        total = int(self.library.api.llama_model_n_layer(self.handle)) + 1
        layers, of = (int(n) for n in counts[-1]) if counts else (0, total)
        return Offload(layers, of, tuple(f"{name} {what}" for name, what in devices))
