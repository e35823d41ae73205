"""The training set written for this project, and the reader for a user's own."""

from arcs.training_data.records import DISPOSITIONS, Record, built_in_paths, data_sha256, load

__all__ = ["DISPOSITIONS", "Record", "built_in_paths", "data_sha256", "load"]
