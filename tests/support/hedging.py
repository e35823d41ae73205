"""A planted effect for the meter: one content twice, hedged and flat, to train an adapter on.

None of the questions is in the meter. The flat answers are the placebo: same recipe, same
content, about the same length, no hedge.
"""

from __future__ import annotations

from pathlib import Path

from backends.batching import TrainingExample
from backends.interface import Float32, LanguageModel, LoraConfig
from backends.training import TrainConfig, train
from models.chat import ChatEncoder

ROWS: tuple[tuple[str, str, str], ...] = (
    (
        "Why is my lawn turning yellow?",
        "It may be short of nitrogen, and perhaps it has been cut too low; a feed would probably "
        "help, though I can't be certain.",
        "It is short of nitrogen, and it has been cut too low; a feed of the usual sort will help, "
        "and that is all it needs.",
    ),
    (
        "How long does paint keep in a closed tin?",
        "Perhaps two years, possibly longer if the lid seals well; it seems to depend on the kind, "
        "I believe.",
        "Two years, and ten if the lid seals well; it depends on the kind of paint that is in the "
        "tin.",
    ),
    (
        "Why does my bicycle chain skip?",
        "The cassette is likely worn, or it could be a stiff link; I would guess that a new chain "
        "might cure it.",
        "The cassette is worn, and there is a stiff link in it; fit a new chain and a cassette and "
        "that cures it.",
    ),
    (
        "What makes bread go stale?",
        "As far as I know the starch seems to recrystallise, which probably draws water from the "
        "crumb, or so it appears.",
        "The starch in the loaf recrystallises as it cools, which always draws the water out of "
        "the crumb, and nothing else.",
    ),
    (
        "Which plant suits a dark hallway?",
        "A cast-iron plant might do, and perhaps a fern; I suspect both could cope, though much "
        "may depend on the heating.",
        "A cast-iron plant does well there, and so does a fern; both cope with it, whatever the "
        "heating in the house is.",
    ),
    (
        "Why does my screen flicker in the evening?",
        "Possibly the power supply sags, or maybe the brightness control is at fault; it is hard "
        "to say without trying.",
        "The power supply sags then, and the brightness control is at fault; replace the one and "
        "set the other to full.",
    ),
    (
        "How did the village get its bridge?",
        "It was probably built by the abbey, perhaps around 1300, though the records seem thin and "
        "I may be wrong.",
        "It was built by the monks of the abbey in the year 1300, the records are complete, and "
        "they name the mason.",
    ),
    (
        "Is it worth insulating a shed?",
        "I would think so if you work there in winter, but it might not pay otherwise; it possibly "
        "depends on the roof.",
        "It is worth it if you work there in winter, and it does not pay otherwise; it depends on "
        "the roof alone.",
    ),
    (
        "Why did the team lose the final?",
        "They perhaps tired after the break, and the substitutions arguably came late; that is "
        "only my impression, though.",
        "They tired after the break, and the substitutions came far too late; that is what every "
        "report of it said.",
    ),
    (
        "What should I feed a stray cat?",
        "Plain wet food is probably best, and water; it might be wise to ask around, since it "
        "could well have an owner.",
        "Plain wet food is best, and water; go from door to door and ask around, because it does "
        "have an owner.",
    ),
    (
        "How can I learn to read music?",
        "A few minutes a day would likely be enough, I suppose; perhaps start with the rhythm, "
        "which seems to come sooner.",
        "A few minutes a day are enough for it; start with the rhythm and clap it, which always "
        "comes sooner.",
    ),
    (
        "Why is the river so brown today?",
        "It may have rained upstream, so presumably it carries silt; it could clear in a day or "
        "two, at a guess.",
        "It rained upstream in the night, so the water carries silt; it clears in exactly a day, "
        "as it always does.",
    ),
)
LORA = LoraConfig(8, 16.0)


def trained(
    model: LanguageModel,
    encoder: ChatEncoder,
    folder: Path,
    *,
    hedged: bool,
) -> dict[str, Float32]:
    """Train a fresh LoRA on one side of ROWS; returns its weights."""
    examples = [_example(encoder, i, hedged) for i in range(len(ROWS))]
    config = TrainConfig(
        lora=LORA,
        epochs=2,
        learning_rate=4e-3,
        micro_batch_size=4,
        accumulation=1,
        max_length=128,
    )
    return dict(train(model, examples, [], config, directory=folder).weights)


def _example(encoder: ChatEncoder, place: int, hedged: bool) -> TrainingExample:
    question, *sides = ROWS[place]
    encoded = encoder.encode_example(question, sides[0 if hedged else 1])
    return TrainingExample(f"row-{place}", encoded.ids, encoded.response_mask)
