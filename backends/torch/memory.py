"""What torch keeps and wastes in training, measured (docs/bench.md); imports no torch."""

from backends.memory import MemoryModel

MODEL = MemoryModel()
