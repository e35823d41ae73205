"""What torch keeps and wastes in training, measured (docs/bench.md); imports no torch.

Attention is fused. On a CPU glibc takes blocks of this size from its heap and keeps the holes:
peaks were up to 1.26 times what lives. With gradient checkpointing the engine has large blocks
mapped one by one (backends/torch/cpu.py), and nothing is kept.
"""

from backends.memory import MemoryModel

MODEL = MemoryModel(runtime=500 << 20, slack=1.15, head_elements=1 << 24, head_copies=4)
