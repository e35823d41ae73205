"""What commands are made of, as their settings models say: defaults, and values of choices.

The options themselves, their flags and help, are the command line's own definition
(:mod:`arcs.cli.config_file` reads it); the models know defaults and which words a setting takes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

MODELS: Mapping[str, tuple[str, str]] = {
    "arc1": ("arcs.arc1.config", "Arc1Config"),
    "arc2": ("arcs.arc2.config", "Arc2Config"),
    "arc3": ("arcs.arc3.config", "Arc3Config"),
    "eval": ("arcs.evaluate.config", "EvalConfig"),
    "measure": ("arcs.measure.config", "MeasureConfig"),
    "paper": ("arcs.paper.config", "PaperConfig"),
    "falsify": ("arcs.falsification.config", "FalsifyConfig"),
    "data generate": ("arcs.teachers.config", "GenerateConfig"),
}
"""Command -> module and class; a command that is missing has its defaults in its options."""
STANDARD = "standard"


def fields_of(command: str) -> dict[str, Any]:
    """Key of the settings file -> field of the command's model. Empty without a model."""
    if command not in MODELS:
        return {}
    module, model = _model_of(command)
    flag_of = getattr(module, "flag_of", lambda name: f"--{name}")
    found = {}
    for name, field in model.model_fields.items():
        flag = str(flag_of(name))
        key = flag[2:].replace("-", "_") if flag.startswith("--") else name  # an argument
        found[key] = (name, field)
    return found


def defaults_of(command: str, profile: str | None = None) -> dict[str, Any]:
    """Key -> value where nothing is given, or nothing but the profile; None: not set."""
    if command not in MODELS:
        return {}
    sizes = profiles_of(command).get(profile or STANDARD, {})
    return {
        key: profile if profile and key == "profile" else sizes.get(name, _default(field))
        for key, (name, field) in fields_of(command).items()
    }


def _default(field: Any) -> Any:
    return None if field.is_required() else field.get_default()


def profiles_of(command: str) -> Mapping[str, Mapping[str, Any]]:
    """Profile -> what it sets of the model's fields. Empty where profiles set other things."""
    if command not in MODELS:
        return {}
    module, model = _model_of(command)
    found = getattr(module, "PROFILES", {})
    fits = all(isinstance(one, Mapping) and one.keys() <= model.model_fields.keys()
               for one in found.values())  # fmt: skip
    return found if fits else {}


def choices_of(command: str, key: str) -> tuple[str, ...]:
    """The words that a setting takes, where the model names them."""
    _, field = fields_of(command).get(key, (None, None))
    return () if field is None else tuple(map(str, _words(field.annotation)))


def takes_list(command: str, key: str) -> bool:
    """Whether a setting holds several values, which the command line takes with commas between."""
    _, field = fields_of(command).get(key, (None, None))
    return field is not None and any(
        get_origin(one) in (tuple, list) for one in (field.annotation, *get_args(field.annotation))
    )


def _words(annotation: Any) -> tuple[Any, ...]:
    """``tuple[Literal["a", "b"], ...] | None`` -> a, b."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(word for inner in get_args(annotation) for word in _words(inner))


def _model_of(command: str) -> tuple[ModuleType, Any]:
    where, name = MODELS[command]
    module = importlib.import_module(where)
    return module, getattr(module, name)
