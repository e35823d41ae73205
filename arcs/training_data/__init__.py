"""The training data written for this project, and the readers for a user's own."""

from arcs.training_data.controls import paired_placebo, shipped_or_own
from arcs.training_data.preferences import (
    Preference,
    built_in_preference_paths,
    load_preferences,
    preferences_sha256,
    require_apart,
)
from arcs.training_data.records import (
    DISPOSITIONS,
    RECORD_TYPES,
    Record,
    RecordType,
    built_in_paths,
    data_sha256,
    load,
)

__all__ = [
    "DISPOSITIONS",
    "RECORD_TYPES",
    "Preference",
    "Record",
    "RecordType",
    "built_in_paths",
    "built_in_preference_paths",
    "data_sha256",
    "load",
    "load_preferences",
    "paired_placebo",
    "preferences_sha256",
    "require_apart",
    "shipped_or_own",
]
