"""What every engine's decoding has in common: which prompts it takes, and when a row ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from backends.interface import FinishReason, Prompt, StopWhen
from models.errors import CapabilityError, UserError


@dataclass(frozen=True)
class Ending:
    """When a sequence is finished."""

    max_tokens: int
    stop_ids: frozenset[int]
    stop_when: StopWhen | None

    def reason(self, ids: Sequence[int]) -> FinishReason | None:
        """Why the sequence of generated ``ids`` ends with the last one, None while it goes on."""
        if ids[-1] in self.stop_ids:
            return "stop"
        if self.stop_when is not None and self.stop_when(tuple(ids)):
            return "stop"
        return "length" if len(ids) >= self.max_tokens else None


def check_prompts(
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    context: int,
    vocab: int,
    replays: bool = False,
) -> None:
    """Raise UserError for prompts that cannot be decoded within ``context`` tokens each.

    ``replays``: the engine can read ids again that were generated earlier; otherwise a prompt
    that holds some is a CapabilityError.
    """
    if max_tokens < 1:
        raise UserError(f"n_predict is {max_tokens}; give at least 1")
    twice = [key for key, n in Counter((p.item_id, p.sample) for p in prompts).items() if n > 1]
    if twice:
        item, sample = twice[0]
        raise UserError(
            f"item id {item} occurs more than once as sample {sample}; "
            "give every prompt its own, and samples of one item a number each"
        )
    for prompt in prompts:
        if not prompt.ids:
            raise UserError(f"the prompt of {prompt.item_id} is empty; give at least one token")
        if not 0 <= min(prompt.ids) <= max(prompt.ids) < vocab:
            raise UserError(
                f"the prompt of {prompt.item_id} has token ids outside 0..{vocab - 1}; "
                f"use the tokenizer of this model"
            )
        if prompt.generated and not replays:
            raise CapabilityError(
                f"{prompt.item_id}: only the llamacpp engine goes on behind ids generated earlier; "
                "decode again with the larger n_predict"
            )
        if len(prompt.generated) >= max_tokens:
            raise UserError(
                f"{prompt.item_id} has {len(prompt.generated)} generated tokens already; give an "
                f"n_predict above that, not {max_tokens}"
            )
        if prompt.generated and not 0 <= min(prompt.generated) <= max(prompt.generated) < vocab:
            raise UserError(
                f"the generated ids of {prompt.item_id} lie outside 0..{vocab - 1}: they are "
                "another model's"
            )
        if len(prompt.ids) + max_tokens > context:
            raise UserError(
                f"{prompt.item_id}: prompt of {len(prompt.ids)} tokens + n_predict {max_tokens} "
                f"is more than the context of {context}; lower n_predict or raise the context"
            )
