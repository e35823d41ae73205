"""The parts that every mlx-lm language model has, found once and named the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
from mlx import nn

from backends.below import Below
from backends.mlx.cpu import fast_attention
from backends.mlx.head import Head


def _evaluated(x: mx.array) -> mx.array:
    """MLX is lazy: what is kept must not be computed again whenever it is used."""
    mx.eval(x)
    return x


@dataclass(frozen=True)
class Decoder:
    """A view of an mlx-lm model. All five families differ only in what is found here."""

    network: Any
    """The whole module, as mlx-lm loaded it."""
    prefix: str
    """``language_model.`` where mlx-lm wraps the text model, else empty: what stands before a
    canonical module name in ``network``."""
    backbone: Any
    """Embedding, decoder layers and final norm: ids [b, T] -> hidden states [b, T, d]."""
    head: Head
    """W [vocab, d]; the embedding's weight where the two are tied."""
    softcap: float | None
    """Final logits are softcap * tanh(logits / softcap) where the model has one (Gemma 4)."""
    below: Below[mx.array] = field(
        default_factory=lambda: Below(keep=_evaluated, give=lambda kept: kept), compare=False
    )

    @classmethod
    def of(cls, network: Any) -> Decoder:
        """Find the parts in a loaded model."""
        wrapped = "language_model" in network
        language_model = network.language_model if wrapped else network
        backbone = language_model.model
        head = language_model.get("lm_head", backbone.embed_tokens)
        softcap = getattr(language_model, "final_logit_softcapping", None)
        return cls(
            network=network,
            prefix="language_model." if wrapped else "",
            backbone=backbone,
            head=Head(head),
            softcap=None if softcap is None else float(softcap),
        )

    @property
    def layers(self) -> list[Any]:
        """The decoder layers, from the first that runs."""
        return list(self.backbone.layers)

    @property
    def dimension(self) -> int:
        """Width of a hidden state."""
        return self.head.shape[1]

    @property
    def query_heads(self) -> int:
        """Query heads of the attention layer that has most; 0 without attention."""
        return max((heads_of(l.self_attn) for l in self.layers if "self_attn" in l), default=0)

    @property
    def dtype(self) -> mx.Dtype:
        """What is computed in: of the weights that are not quantised."""
        dtype: mx.Dtype = self.backbone.norm.weight.dtype
        return dtype

    def hidden(self, ids: mx.array, cache: Sequence[Any] | None = None) -> mx.array:
        """Hidden states after the final norm [b, T, d]; the language-model head is not run."""
        # Gemma 4 appends to the list it is given, so it gets a copy.
        with fast_attention():
            hidden: mx.array = self.backbone(ids, cache=None if cache is None else list(cache))
        return hidden

    @contextmanager
    def reusing_below(self) -> Iterator[None]:
        """See :meth:`backends.interface.LanguageModel.reusing_below`."""
        # Gemma 4: later layers read keys and values of earlier ones, so none can be left out
        if hasattr(self.backbone, "previous_kvs"):
            yield
            return
        with self.below.opened() as first:
            layers = self.layers if first else []
            with tapped(
                [(one, Tap(instead=partial(self.below.instead, i))) for i, one in enumerate(layers)]
            ):
                yield

    def logits(self, hidden: mx.array) -> mx.array:
        """Float32 logits [..., vocab] of hidden states [..., d]."""
        logits = self.head.forward(hidden).astype(mx.float32)
        return logits if self.softcap is None else self.softcap * mx.tanh(logits / self.softcap)


def heads_of(attention: Any) -> int:
    """Query heads of an attention module, whichever name its family has for them."""
    return int(getattr(attention, "n_heads", None) or attention.num_attention_heads)


@dataclass(frozen=True, eq=False)
class Tap:
    """What is done around every call of one module."""

    before: Callable[[mx.array], mx.array] | None = None
    """Gets the first argument and returns what the module gets in its place."""
    after: Callable[[mx.array], None] | None = None
    """Gets the result; of a tuple its first element."""
    instead: Callable[[mx.array], mx.array | None] | None = None
    """Gets the first argument; what it returns is the result, and the module is not run."""


@contextmanager
def tapped(taps: Sequence[tuple[Any, Tap]]) -> Iterator[None]:
    """Attach taps to modules meanwhile; those attached first are run first.

    MLX is lazy: what a tap keeps must be evaluated while it may still be needed.
    """
    with ExitStack() as stack:
        for module, tap in taps:
            attach_tap(module, tap)
            stack.callback(detach_tap, module, tap)
        yield


def attach_tap(module: Any, tap: Tap) -> None:
    """Swap the class of ``module``, so that names, weights and LoRAs stay as they are."""
    taps = vars(type(module)).get("_taps")
    if taps is None:
        module.__class__ = _tappable(type(module), [tap])
    else:
        taps.append(tap)


def detach_tap(module: Any, tap: Tap) -> None:
    """Undo :func:`attach_tap`; with the last tap the module gets its own class back."""
    tappable = vars(type(module))
    tappable["_taps"].remove(tap)
    if not tappable["_taps"]:
        module.__class__ = tappable["_original"]


def _tappable(cls: type, taps: list[Tap]) -> type:
    def call(self: Any, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        for tap in taps:
            x = x if tap.before is None else tap.before(x)
        given = (tap.instead(x) for tap in taps if tap.instead is not None)
        result = next((one for one in given if one is not None), None)
        if result is None:
            result = cls.__call__(self, x, *args, **kwargs)
        for tap in taps:
            if tap.after is not None:
                tap.after(result[0] if isinstance(result, tuple) else result)
        return result

    return type(cls.__name__, (cls,), {"__call__": call, "_taps": taps, "_original": cls})


class ScaledEmbedding(nn.Embedding):  # type: ignore[misc]
    """An embedding times a constant; ``as_linear`` (a tied head) is not scaled."""

    def __call__(self, x: mx.array) -> mx.array:
        """Embed ids [..] -> [.., d]."""
        embedded: mx.array = super().__call__(x)
        scaled: mx.array = embedded * self._factor
        return scaled


class ScaledQuantizedEmbedding(nn.QuantizedEmbedding):  # type: ignore[misc]
    """The same over packed weights."""

    def __call__(self, x: mx.array) -> mx.array:
        """Embed ids [..] -> [.., d]."""
        embedded: mx.array = super().__call__(x)
        scaled: mx.array = embedded * self._factor
        return scaled


def restore_embedding_scale(decoder: Decoder, dtype: mx.Dtype) -> None:
    """Undo mlx-lm's rounding of Gemma 3's embedding scale sqrt(hidden) to bfloat16.

    transformers rounds it to the dtype of the weights instead: 25.298 in float32, where mlx-lm
    multiplies by 25.25 (hidden 640). The class is swapped so that no weight name changes.
    """
    exact = math.sqrt(decoder.dimension)
    used = float(mx.array(exact, mx.bfloat16).astype(mx.float32))
    if dtype == mx.bfloat16 or used == exact:
        return
    embedding = decoder.backbone.embed_tokens
    packed = isinstance(embedding, nn.QuantizedEmbedding)
    embedding.__class__ = ScaledQuantizedEmbedding if packed else ScaledEmbedding
    embedding._factor = exact / used
