"""What a training will need in memory, worked out before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from backends.interface import Dtype
from backends.lora import select_modules
from backends.training import TrainConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_config, text_config
from models.safetensors_file import StoredTensor, read_header

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PACKING_GROUP = 64
"""Weights that share a scale in a base quantised while loading."""
_LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?(layers\.\d+\..+)\.weight")


@dataclass(frozen=True)
class MemoryModel:
    """What an engine keeps and wastes; each says its own in ``backends.<engine>.memory``.

    ``hidden``, ``attention``, ``mlp`` and ``deltanet`` count vectors that a decoder layer leaves
    behind a position for the backward pass: of the hidden width, of the widths of q, k, v and
    o_proj's input together, of the MLP's width, and of a Gated DeltaNet's projections together.
    """

    runtime: int = 500 << 20
    """Bytes of the interpreter, the engine's libraries and their work space."""
    slack: float = 1.15
    """Peak resident over live bytes of what comes and goes: allocators keep what was freed."""
    layer_slack: float = 0.0
    """Layers' worth of activations beyond that where layers are recomputed: blocks of a
    recomputed layer are freed between others that stay, and the holes are kept."""
    head_elements: int = 1 << 24
    """Logits in one chunk of the head."""
    head_copies: int = 4
    """Float32 arrays of a chunk's size alive at once."""
    hidden: int = 6
    attention: int = 3
    mlp: int = 3
    deltanet: int = 12
    norms: int = 0
    """Float32 vectors that a norm keeps of its input's width; 0 where ``hidden`` counts them."""
    repeats: bool = False
    """Whether attention in float32 keeps keys and values repeated to the heads of its queries."""
    scores: int = 0
    """Float32 arrays [heads, T, T] a row that attention keeps; 0 where it is fused."""


GENERIC = MemoryModel()


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that decide its memory."""

    parameters: int
    """Of packed layers those that they stand for."""
    hidden: int
    intermediate: int
    vocab: int
    linear_modules: Mapping[str, tuple[int, int]]
    """Canonical name -> (out_features, in_features), as :meth:`LanguageModel.linear_modules`."""
    heads: int
    """Query heads of an attention layer."""
    normed: int = 0
    """Widths that the decoder layers' norms read, added up."""
    packed_parameters: int = 0
    """Parameters among them that are stored in a few bits."""
    packed_bytes: int = 0
    """Bytes of those, without their scales and offsets."""
    packed_floats: int = 0
    """Scales and offsets."""

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
    slack: int = 0
    """Freed blocks that the allocator keeps at the peak."""
    base_bits: int | None = None
    pairs: bool = False
    """``micro_batch_size`` counts preference pairs, of two rows each."""

    @property
    def training(self) -> int:
        """What training adds to the loaded model."""
        exact = self.lora + self.gradients + self.optimizer
        return exact + self.activations + self.head + self.slack

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.runtime + self.training

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "total": self.total}


def model_size(directory: ModelDirectory) -> ModelSize:
    """Read the sizes from config.json and the headers of the weight files; loads no weights."""
    config = read_config(directory.path)
    text = text_config(config)
    stored: dict[str, StoredTensor] = {}
    for file in sorted(directory.path.glob("*.safetensors")):
        stored |= read_header(file)
    if not stored:
        raise UserError(f"model directory {directory.path} holds no safetensors files")
    packed = {name for name in stored if f"{name.removesuffix('.weight')}.scales" in stored}
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    shapes |= {name: _unpacked_shape(name, shapes, config) for name in packed}
    extra = {
        f"{name.removesuffix('.weight')}.{part}" for name in packed for part in ("scales", "biases")
    } & shapes.keys()
    linear = {}
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match and len(shape) == 2:
            linear[f"model.{match[1]}"] = (shape[0], shape[1])
    intermediate = max(out for name, (out, _) in linear.items() if name.endswith("mlp.up_proj"))
    return ModelSize(
        parameters=sum(prod(shape) for name, shape in shapes.items() if name not in extra),
        hidden=text["hidden_size"],
        intermediate=intermediate,
        vocab=text["vocab_size"],
        linear_modules=linear,
        heads=text["num_attention_heads"],
        normed=_normed_widths(shapes, linear),
        packed_parameters=sum(prod(shapes[name]) for name in packed),
        packed_bytes=sum(4 * prod(stored[name].shape) for name in packed),
        packed_floats=sum(prod(shapes[name]) for name in extra),
    )


def _normed_widths(
    shapes: Mapping[str, tuple[int, ...]], linear: Mapping[str, tuple[int, int]]
) -> int:
    """A norm of heads has a weight of head_dim and reads all of q_proj's or k_proj's output."""
    found = 0
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match and len(shape) == 1 and name.endswith("norm.weight"):
            part = match[1].removesuffix("_norm")
            heads = linear.get(f"model.{part}_proj") if part.endswith(("q", "k")) else None
            found += heads[0] if heads else shape[0]
    return found


def _unpacked_shape(
    name: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> tuple[int, ...]:
    """Shape that a packed weight stands for: its scales, one a group of ``group_size`` columns."""
    path = name.removesuffix(".weight")
    settings = config["quantization"]
    own = settings.get(path)
    group = (own if isinstance(own, Mapping) else settings)["group_size"]
    rows, groups = shapes[f"{path}.scales"]
    return rows, groups * int(group)


def estimate_training(
    size: ModelSize,
    config: TrainConfig,
    *,
    dtype: Dtype = "float32",
    longest: int | None = None,
    base_bits: int | None = None,
    pairs: bool = False,
    engine: MemoryModel = GENERIC,
) -> MemoryEstimate:
    """Estimate training memory for the longest micro-batch.

    ``longest`` is the length of the longest example, when known; it is cut at max_length.
    ``base_bits``: the decoder's linear layers are packed to so many bits while loading.
    ``pairs``: the micro-batch is of preference pairs, two rows each.
    ``engine``: see :func:`backends.memory_model`. Measured peaks lie within 25 percent
    (tests/backends/test_memory_estimate.py).
    """
    length = min(config.max_length, longest or config.max_length)
    positions = config.micro_batch_size * (2 if pairs else 1) * length
    modules = select_modules(size.linear_modules, config.lora.targets)
    lora = config.lora.rank * sum(sum(size.linear_modules[name]) for name in modules)
    item = ITEM_BYTES[dtype]
    activations = positions * _bytes_per_position(size, modules, config, item, length, engine)
    head = _head_bytes(size, positions, engine)
    slack = (engine.slack - 1.0) * (activations + head)
    if config.gradient_checkpointing:
        whole = replace(config, gradient_checkpointing=False)
        kept = positions * _bytes_per_position(size, modules, whole, item, length, engine)
        slack += engine.layer_slack * kept / size.layers
    return MemoryEstimate(
        weights=_weight_bytes(size, item, base_bits),
        lora=4 * lora,
        gradients=4 * lora,
        optimizer=8 * lora,
        activations=activations,
        head=head,
        runtime=engine.runtime,
        micro_batch_size=config.micro_batch_size,
        length=length,
        gradient_checkpointing=config.gradient_checkpointing,
        dtype=dtype,
        slack=round(slack),
        base_bits=base_bits,
        pairs=pairs,
    )


def _weight_bytes(size: ModelSize, item: int, base_bits: int | None) -> int:
    plain = size.parameters - size.packed_parameters + size.packed_floats
    if base_bits is None:
        return plain * item + size.packed_bytes
    linear = sum(prod(shape) for shape in size.linear_modules.values())
    # one scale and one offset a group
    return (plain - linear) * item + linear * base_bits // 8 + 2 * item * linear // PACKING_GROUP


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
        f"{estimate.micro_batch_size}{' x 2' if estimate.pairs else ''} x {estimate.length} "
        f"tokens): {_advice(estimate, available)}"
    )


def available_memory() -> int:
    """Free bytes of the machine's memory, within the limit of this process's control group.

    Where Metal, MPS and CPUs keep their tensors; for a GPU with memory of its own, ask
    :func:`backends.free_memory`.
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *_cgroup_free()])


def _bytes_per_position(
    size: ModelSize,
    modules: list[str],
    config: TrainConfig,
    item: int,
    length: int,
    engine: MemoryModel,
) -> int:
    """Bytes that one position leaves behind for the backward pass.

    Counted from what torch's autograd saves (test_training_memory). A decoder layer keeps 6
    vectors of the hidden width (inputs of norms and of adapted modules, more where norms run in
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
        (engine.hidden * size.hidden + engine.mlp * size.intermediate) * layers
        + engine.attention * widths[".self_attn."]
        + engine.deltanet * widths[".linear_attn."]
    )
    attending = len({_layer(name) for name in live if ".self_attn." in name})
    scores = 4 * engine.scores * attending * size.heads * length
    adapted = 4 * config.lora.rank * len(modules)
    adapted += item * sum(
        size.linear_modules[name][1] for name in modules if name.endswith("down_proj")
    )
    if item != 4 or config.lora.dropout > 0:
        adapted += 4 * sum(size.linear_modules[name][1] for name in modules)
    vectors += engine.norms * (4 // item) * size.normed * layers // size.layers
    if engine.repeats and item == 4:
        vectors += sum(
            2 * into - 2 * live[name.replace("o_proj", "k_proj")][0]
            for name, (_, into) in live.items()
            if name.endswith("self_attn.o_proj") and name.replace("o_proj", "k_proj") in live
        )
    everything = item * vectors + adapted + scores
    if not config.gradient_checkpointing:
        return everything
    return item * size.hidden * layers + everything // layers


def _layer(module: str) -> int:
    return int(module.split(".")[2])


def _head_bytes(size: ModelSize, positions: int, engine: MemoryModel) -> int:
    """Logits, their float32 copy, log-softmax and its gradient, for one chunk."""
    chunk = min(max(engine.head_elements, size.vocab), positions * size.vocab)
    return 4 * engine.head_copies * chunk


def _advice(estimate: MemoryEstimate, available: int) -> str:
    if estimate.weights + estimate.runtime > available and estimate.dtype == "float32":
        return "use dtype bfloat16, base_bits 4 (mlx only) or a smaller model"
    if estimate.weights + estimate.runtime > available:
        return "use a smaller model" + ("" if estimate.base_bits else " or base_bits 4 (mlx only)")
    own = "dpo_" if estimate.pairs else ""
    smaller = f"lower {own}micro_batch_size and raise {own}accumulation"
    if not estimate.gradient_checkpointing:
        return f"turn on gradient_checkpointing, or {smaller}"
    return smaller if estimate.micro_batch_size > 1 else f"lower {own}max_length"


def _cgroup_free(root: str | Path = "/sys/fs/cgroup") -> list[int]:
    """Free bytes under the container's limit, where Linux control groups set one."""
    root = Path(root)
    for folder, limit, used in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            return [left + _reclaimable(folder / "memory.stat")]
        except (OSError, ValueError):
            continue  # no such file, or "max": no limit of this kind
    return []


def _reclaimable(stat: Path) -> int:
    """Bytes of file cache, which counts as used and is given up when memory is asked for."""
    entries = dict(line.split() for line in stat.read_text().splitlines())
    found = 0
    for name in ("active_file", "inactive_file"):
        found += int(entries.get(f"total_{name}", entries.get(name, 0)))
    return found


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
