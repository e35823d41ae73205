"""What a training will need in memory, worked out before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from backends.interface import Dtype
from backends.lora import select_modules
from backends.training import TrainConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_config, text_config
from models.safetensors_file import read_header

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_HEAD_ELEMENTS = 1 << 24
"""Logits in one chunk of the head, on both engines."""
_LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?(layers\.\d+\..+)\.weight")
_RUNTIME_BYTES = 600 << 20
"""Interpreter, engine and its work space (torch on CPU: 0.4 GiB, measured)."""
_SLACK = 1.6
"""Peak resident over live bytes: 1.3 to 1.8 for SmolLM2-135M on CPU, since glibc keeps freed
blocks of this size in its heap. Device allocators waste less."""


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that decide its memory."""

    parameters: int
    hidden: int
    intermediate: int
    vocab: int
    linear_modules: Mapping[str, tuple[int, int]]
    """Canonical name -> (out_features, in_features), as :meth:`LanguageModel.linear_modules`."""

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len({name.split(".")[2] for name in self.linear_modules})


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose, and the settings that could lower them."""

    weights: int
    lora: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    runtime: int
    micro_batch_size: int
    length: int
    gradient_checkpointing: bool
    dtype: Dtype

    @property
    def training(self) -> int:
        """What training adds to the loaded model."""
        exact = self.lora + self.gradients + self.optimizer
        return exact + round(_SLACK * (self.activations + self.head))

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.runtime + self.training

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "total": self.total}


def model_size(directory: ModelDirectory) -> ModelSize:
    """Read the sizes from config.json and the headers of the weight files; loads no weights."""
    text = text_config(read_config(directory.path))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(directory.path.glob("*.safetensors")):
        shapes |= {name: tensor.shape for name, tensor in read_header(file).items()}
    if not shapes:
        raise UserError(f"model directory {directory.path} holds no safetensors files")
    linear = {}
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match and len(shape) == 2:
            linear[f"model.{match[1]}"] = (shape[0], shape[1])
    intermediate = max(out for name, (out, _) in linear.items() if name.endswith("mlp.up_proj"))
    return ModelSize(
        parameters=sum(prod(shape) for shape in shapes.values()),
        hidden=text["hidden_size"],
        intermediate=intermediate,
        vocab=text["vocab_size"],
        linear_modules=linear,
    )


def estimate_training(
    size: ModelSize, config: TrainConfig, *, dtype: Dtype = "float32", longest: int | None = None
) -> MemoryEstimate:
    """Estimate training memory for the longest micro-batch.

    ``longest`` is the length of the longest example, when known; it is cut at max_length.
    """
    length = min(config.max_length, longest or config.max_length)
    positions = config.micro_batch_size * length
    modules = select_modules(size.linear_modules, config.lora.targets)
    lora = config.lora.rank * sum(sum(size.linear_modules[name]) for name in modules)
    item = ITEM_BYTES[dtype]
    return MemoryEstimate(
        weights=size.parameters * item,
        lora=4 * lora,
        gradients=4 * lora,
        optimizer=8 * lora,
        activations=positions * _bytes_per_position(size, modules, config, item),
        head=_head_bytes(size, positions),
        runtime=_RUNTIME_BYTES,
        micro_batch_size=config.micro_batch_size,
        length=length,
        gradient_checkpointing=config.gradient_checkpointing,
        dtype=dtype,
    )


def require_fits(estimate: MemoryEstimate, available: int, *, loaded: bool = False) -> None:
    """Raise UserError naming the setting to change when the estimate exceeds ``available`` bytes.

    ``loaded``: the weights are in memory already and not part of ``available``.
    """
    needed = estimate.training if loaded else estimate.total
    if needed <= available:
        return
    raise UserError(
        f"training needs about {_gib(needed)} and {_gib(available)} are free "
        f"(weights {_gib(estimate.weights)}, activations {_gib(estimate.activations)} for "
        f"{estimate.micro_batch_size} x {estimate.length} tokens): {_advice(estimate, available)}"
    )


def available_memory() -> int:
    """Free bytes of the machine's memory, within the limit of this process's control group.

    Where Metal, MPS and CPUs keep their tensors; for a GPU with memory of its own, ask
    :func:`backends.free_memory`.
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *_cgroup_free()])


def _bytes_per_position(size: ModelSize, modules: list[str], config: TrainConfig, item: int) -> int:
    """Bytes that one position leaves behind for the backward pass.

    Counted from what autograd saves (test_training_memory). A decoder layer keeps 6 vectors
    of the hidden width (inputs of norms and of adapted modules, more where norms run in
    float32 over a half-precision base), 3 of each of q, k, v and the attention output, and 3
    of the MLP's width (gate, its activation, up); a Gated DeltaNet keeps some 12 of each of
    its projections. An adapted module keeps its rank-wide product (down_proj its
    input as well, which nothing else keeps), and its input once more in float32 where it was
    given something else. Layers below the first adapted one keep nothing.
    """
    first = min(_layer(name) for name in modules)
    live = {n: shape for n, shape in size.linear_modules.items() if _layer(n) >= first}
    layers = len({_layer(name) for name in live})
    widths = {
        kind: sum(
            into if name.endswith(("o_proj", "out_proj")) else out
            for name, (out, into) in live.items()
            if kind in name
        )
        for kind in (".self_attn.", ".linear_attn.")
    }
    vectors = (
        (6 * size.hidden + 3 * size.intermediate) * layers
        + 3 * widths[".self_attn."]
        + 12 * widths[".linear_attn."]
    )
    adapted = 4 * config.lora.rank * len(modules)
    adapted += item * sum(
        size.linear_modules[name][1] for name in modules if name.endswith("down_proj")
    )
    if item != 4 or config.lora.dropout > 0:
        adapted += 4 * sum(size.linear_modules[name][1] for name in modules)
    everything = item * vectors + adapted
    if not config.gradient_checkpointing:
        return everything
    return item * size.hidden * layers + everything // layers


def _layer(module: str) -> int:
    return int(module.split(".")[2])


def _head_bytes(size: ModelSize, positions: int) -> int:
    """Logits, their float32 copy, log-softmax and its gradient, for one chunk."""
    return 4 * 4 * min(max(_HEAD_ELEMENTS, size.vocab), positions * size.vocab)


def _advice(estimate: MemoryEstimate, available: int) -> str:
    if estimate.weights + estimate.runtime > available and estimate.dtype == "float32":
        return "use dtype bfloat16, or a smaller model"
    if estimate.weights + estimate.runtime > available:
        return "use a smaller model"
    if not estimate.gradient_checkpointing:
        return "turn on gradient_checkpointing, or lower micro_batch_size and raise accumulation"
    if estimate.micro_batch_size > 1:
        return "lower micro_batch_size and raise accumulation"
    return "lower max_length"


def _cgroup_free() -> list[int]:
    """Free bytes under the container's limit, where Linux control groups set one."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            return [int(Path(limit).read_text()) - int(Path(used).read_text())]
        except (OSError, ValueError):
            continue  # no such file, or "max": no limit of this kind
    return []


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
