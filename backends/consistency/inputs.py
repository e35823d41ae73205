"""What every engine is given: ids, heads, adapters and prompts, decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backends.batching import TrainingExample
from backends.heads import Heads
from backends.interface import Float32, Head, LoraConfig, Prompt
from backends.lora import initial_weights
from backends.randomness import permutation, uniform
from models.chat import ChatEncoder, Message

LENGTHS = (96, 41, 23, 9)
"""Ids of the sequences compared: above and below the Gated DeltaNet chunk of 64 ids."""
LAST_N = 8
LORA = LoraConfig(rank=4, alpha=8.0)
QUESTIONS = (
    "Write a Python function that reverses a string.",
    "Why does a hollandaise split, and how is it saved?",
    "What is the difference between a list and a tuple in Python?",
    "How long should a five-minute egg really cook at altitude?",
    "Explain recursion with one short example.",
    "Which knife cut is a brunoise?",
    "Write a loop that prints the squares of 1 to 10.",
    "How do you make a roux without lumps?",
    "What does the keyword yield do?",
    "Can a veloute be frozen?",
    "Sort the words of a sentence by their length.",
    "Why rest a steak before it is cut?",
    "What is a hash table?",
    "How is a vinaigrette kept from separating?",
    "Count the vowels in a text.",
    "What is the smoke point of butter?",
    "Explain what a context manager is for.",
    "How do you tell that caramel is done?",
    "Find the largest number in a list.",
    "What makes puff pastry rise?",
)
"""Twenty questions of this project's two domains, answered by no evaluation."""


@dataclass(frozen=True)
class Inputs:
    """Everything that is handed to an engine."""

    sequences: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    """Index of the first response id of each sequence."""
    prompts: tuple[Prompt, ...]
    stop_ids: tuple[int, ...]
    examples: tuple[TrainingExample, ...]
    max_tokens: int
    train_steps: int


def make_inputs(
    encoder: ChatEncoder, vocab: int, *, prompts: int = 20, max_tokens: int = 128
) -> Inputs:
    """Random ids for forward passes and training, encoded questions for texts."""
    sequences = tuple(_ids(length, vocab, number) for number, length in enumerate(LENGTHS))
    encoded = [encoder.encode_prompt([Message("user", text)]) for text in QUESTIONS[:prompts]]
    return Inputs(
        sequences=sequences,
        starts=tuple(max(1, len(ids) // 2) for ids in sequences),
        prompts=tuple(Prompt(f"question-{i}", tuple(p.ids)) for i, p in enumerate(encoded)),
        stop_ids=tuple(encoder.stop_ids),
        examples=tuple(_example(number, vocab) for number in range(20)),
        max_tokens=max_tokens,
        train_steps=20,
    )


def _ids(length: int, vocab: int, number: int) -> tuple[int, ...]:
    # from the lower half: image and audio markers lie at the end of multimodal vocabularies
    drawn = permutation(max(2, vocab // 2), "consistency", number)
    return tuple(int(token) for token in np.resize(drawn, length))


def _example(number: int, vocab: int) -> TrainingExample:
    ids = _ids(24 + 3 * (number % 7), vocab, 100 + number)
    mask = tuple(place >= len(ids) // 3 for place in range(len(ids)))
    return TrainingExample(f"example-{number}", ids, mask)


def settings_of_heads(heads: Heads) -> dict[str, dict[Head, float]]:
    """Factors to compare: one head by 0.5, several by 0, 0.5 and 0.9, and every head by 0."""
    layers = sorted(heads)
    first, last = layers[0], layers[-1]
    return {
        "tempered, one head 0.5": {Head(last, heads[last][0] - 1): 0.5},
        "tempered, several": {
            Head(first, 0): 0.0,
            Head(last, 0): 0.9,
            Head(layers[len(layers) // 2], heads[layers[len(layers) // 2]][0] - 1): 0.5,
        },
        "tempered, a layer 0": {Head(last, head): 0.0 for head in range(heads[last][0])},
    }


def live_adapter(linear: Mapping[str, tuple[int, int]], seed: int = 0) -> dict[str, Float32]:
    """LoRA weights whose B is not zero, so that the adapter changes the logits."""
    weights = initial_weights(LORA, linear, seed)
    for name in [key for key in weights if key.endswith(".lora_B")]:
        shape = weights[name].shape
        drawn = uniform(int(np.prod(shape)), "consistency B", seed, name).reshape(shape)
        weights[name] = ((2 * drawn - 1) * 0.05).astype(np.float32)
    return weights
