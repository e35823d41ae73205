"""How a model in Hugging Face form is laid out in a GGUF: one description for every family.

Names of tensors come from the gguf package's own table. What a family does besides (other row
orders, norms stored with their 1 added, tensors that are computed) is in ``llama.py``,
``qwen.py`` and ``gemma.py`` beside this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.geometry import ModelGeometry, geometry, read_config, text_config

if TYPE_CHECKING:
    import gguf

Float32 = NDArray[np.float32]
Pair = tuple[Float32, Float32]
"""A LoRA's A (rank, in) and B (out, rank)."""
Write = Callable[["gguf.GGUFWriter"], None]

ARCHITECTURES = ("llama", "qwen3", "qwen35", "gemma3", "gemma4")
"""llama.cpp's names of the architectures that are laid out here."""
_TOWERS = ("visual.", "vision_tower.", "audio_tower.", "multi_modal_projector.", "embed_vision.",
           "embed_audio.", "vision_embedder.")  # fmt: skip
"""Parts of multimodal models beside the language model."""
_PREFIXES = ("model.language_model.", "language_model.model.", "model.model.")
_FEED_FORWARD = ("ffn_gate", "ffn_up", "ffn_down", "ffn_norm")
_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm")


def _same(_name: str, values: Float32) -> Float32:
    return values


def _same_pair(_module: str, a: Float32, b: Float32) -> Pair:
    return a, b


@dataclass(frozen=True)
class Layout:
    """A model's GGUF form."""

    architecture: str
    """llama.cpp's name, e.g. ``qwen35``."""
    geometry: ModelGeometry
    tied: bool
    """The head shares the embedding's matrix, so no ``output.weight`` is written."""
    write_metadata: Write
    """Writes what the family states beside :func:`write_common`."""
    required: tuple[str, ...]
    """GGUF names without which llama.cpp cannot run the model."""
    weight: Callable[[str, Float32], Float32] = _same
    """(canonical parameter name, values) -> values as they are stored."""
    lora: Callable[[str, Float32, Float32], Pair] = _same_pair
    """(canonical module, A, B) -> both in the order of the stored weights."""
    extra: Mapping[str, Float32] = field(default_factory=dict)
    """Tensors that are computed from the config: GGUF name -> float32 values."""

    @property
    def heads(self) -> dict[int, tuple[int, int]]:
        """Layer -> (heads, head_dim) of every layer with an o_proj."""
        return {
            one.layer: (one.n_heads, one.head_dim) for one in self.geometry.layers if one.has_o_proj
        }

    def name_of(self, parameter: str) -> str | None:
        """GGUF name of a canonical parameter (``….weight``, ``….bias``, ``A_log``), or None."""
        import gguf

        architecture = next(
            key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture
        )
        table = gguf.get_tensor_name_map(architecture, self.geometry.n_layers)
        if parameter.endswith(".dt_bias"):
            parameter = parameter.removesuffix("dt_bias") + "dt_proj.bias"
        if parameter.endswith(".layer_scalar"):
            parameter += ".weight"
        found = table.get_name(parameter, try_suffixes=(".weight", ".bias"))
        return None if found is None else str(found)


def layout_of(directory: ModelDirectory, *, doing: str) -> Layout:
    """Return the GGUF form of a model directory, from its config.json alone.

    ``doing`` names the operation in messages. Raises CapabilityError for a variant that would
    be written wrongly (RoPE scaling, a layer pattern that llama.cpp does not know), UserError
    for a config that lacks a key.
    """
    from models.gguf.gemma import gemma3_layout, gemma4_layout
    from models.gguf.llama import llama_layout
    from models.gguf.qwen import qwen3_5_layout, qwen3_layout

    families: dict[str, Callable[[Mapping[str, Any], ModelGeometry, Refuse], Layout]] = {
        "llama": llama_layout,
        "qwen3": qwen3_layout,
        "qwen3_5": qwen3_5_layout,
        "gemma3": gemma3_layout,
        "gemma4": gemma4_layout,
    }
    config = read_config(directory.path)
    where = str(directory.path / "config.json")
    make = families[directory.family]
    text = dict(text_config(config))
    if "tie_word_embeddings" in config:  # of a wrapper: transformers goes by the outer key
        text["tie_word_embeddings"] = config["tie_word_embeddings"]
    try:
        layout = make(text, geometry(config, where), Refuse(directory.name, doing))
        layout.write_metadata(cast("gguf.GGUFWriter", _Nowhere()))  # reads every key that is needed
    except KeyError as error:
        raise UserError(f"{where} has no {error.args[0]}; prepare the model again") from error
    return layout


class _Nowhere:
    """A writer that keeps nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@dataclass(frozen=True)
class Refuse:
    """Says in one line what cannot be written."""

    model: str
    doing: str

    def unless(self, holds: bool, what: str) -> None:
        """Raise CapabilityError for the variant ``what``."""
        if not holds:
            raise CapabilityError(
                f"{self.model}: {self.doing} is not possible with {what}, which llama.cpp would "
                "compute differently; give the model's own .gguf file"
            )


def canonical(parameter: str) -> str | None:
    """Name of a stored parameter in the text-only model; None for other parts of a model.

    Towers for images and sound, multi-token-prediction layers and RoPE buffers are such parts.
    """
    for prefix in _PREFIXES:
        if parameter.startswith(prefix):
            parameter = "model." + parameter.removeprefix(prefix)
            break
    parameter = parameter.replace("language_model.lm_head.", "lm_head.")
    inner = parameter.removeprefix("model.")
    if inner.startswith(_TOWERS) or inner.startswith("mtp.") or "rotary_emb." in inner:
        return None
    return parameter


def write_common(writer: gguf.GGUFWriter, config: Mapping[str, Any], model: ModelGeometry) -> None:
    """Write what every family states, but for its attention's widths and RoPE."""
    writer.add_block_count(model.n_layers)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.hidden_size)
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(model.vocab_size)


def write_attention(writer: gguf.GGUFWriter, config: Mapping[str, Any], head_dim: int) -> None:
    """Write key and value widths and the number of key-value heads, equal in all layers."""
    heads = int(config["num_attention_heads"])
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)


def rope(config: Mapping[str, Any], kind: str | None = None) -> Mapping[str, Any]:
    """RoPE settings (of a layer type) under transformers 5's key or the older ones."""
    found = config.get("rope_parameters") or {}
    if kind is not None:
        found = found.get(kind) or {}
    if found:
        return found
    old = config.get("rope_scaling") or {}
    return {"rope_theta": config["rope_theta"], **old} if "rope_theta" in config else old


def rope_theta(settings: Mapping[str, Any]) -> float:
    """The base of the rotation's frequencies. Raises KeyError where it is not stated."""
    if settings.get("rope_theta") is None:
        raise KeyError("rope_theta")
    return float(settings["rope_theta"])


def rope_type(settings: Mapping[str, Any]) -> str:
    """``default``, or the name of a scaling."""
    return str(settings.get("rope_type", settings.get("type", "default")))


def required_names(model: ModelGeometry, *more: str, tied: bool, qk_norm: bool) -> tuple[str, ...]:
    """Names that a model of attention layers and gated MLPs has; ``more``: of every layer."""
    parts = [*_ATTENTION, *_FEED_FORWARD, *more]
    parts += ["attn_q_norm", "attn_k_norm"] if qk_norm else []
    names = [f"blk.{layer}.{part}.weight" for layer in range(model.n_layers) for part in parts]
    head = [] if tied else ["output.weight"]
    return ("token_embd.weight", "output_norm.weight", *head, *names)


def refuse_other_blocks(
    config: Mapping[str, Any], refuse: Refuse, *, activation: str, key: str = "hidden_act"
) -> None:
    """Refuse biases in attention, and another activation of the MLP than llama.cpp uses."""
    found = config.get(key, activation)
    refuse.unless(found == activation, f"activation {found!r}")
    refuse.unless(not config.get("attention_bias"), "biases in attention")


def is_norm(parameter: str) -> bool:
    """Whether a parameter is the weight of a normalisation."""
    return re.search(r"norm\.weight$", parameter) is not None
