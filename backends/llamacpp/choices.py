"""Which of several answers a model would begin: one prompt at a time, read off its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from backends.interface import Float64
from backends.llamacpp.context import DecodeContext, Settings
from backends.llamacpp.native import NativeModel
from models.errors import UserError


def choice_logprobs(
    native: NativeModel,
    settings: Settings,
    prompts: Sequence[Sequence[int]],
    options: Sequence[int],
    *,
    prefix: Sequence[int] = (),
) -> Iterator[Float64]:
    """Yield the log-probabilities (nats) of ``options`` as next id after each prompt, [options].

    Each prompt is read alone, behind ``prefix`` where it begins with it, so that what is found
    does not depend on the other prompts.
    """
    alone = replace(settings, width=1, prefix=tuple(prefix), kv_unified=False)
    context = DecodeContext(native, alone)
    try:
        for prompt in prompts:
            logits = context.ingest(0, prompt)[0].astype(np.float64)
            largest = logits.max()
            total = largest + np.log(np.exp(logits - largest).sum())
            context.release(0)
            found = logits[list(options)] - total
            if not np.isfinite(found).all():
                raise UserError(
                    "llama.cpp returned logits that are not finite numbers: the model file is "
                    "damaged"
                )
            yield found
    finally:
        context.close()
