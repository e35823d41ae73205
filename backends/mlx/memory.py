"""What MLX keeps and wastes in training, measured (docs/bench.md); imports no MLX."""

from backends.memory import MemoryModel

MODEL = MemoryModel()
