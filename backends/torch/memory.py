"""What torch keeps and wastes in training, measured (docs/bench.md); imports no torch.

Attention is fused. On a CPU glibc takes blocks of this size from its heap and keeps the holes:
peaks were up to 1.26 times what lives. With gradient checkpointing the engine has large blocks
mapped one by one (backends/torch/cpu.py), and nothing is kept.
"""

from backends.memory import MemoryModel

MODEL = MemoryModel(runtime=500 << 20, slack=1.15, head_elements=1 << 24, head_copies=4)

CUDA = MemoryModel(
    runtime=64 << 20,  # cuBLAS's work space, and what AdamW's step needs
    slack=1.05,
    head_elements=1 << 24,
    head_copies=4,
    hidden=1,
    norms=1,
    attention=1,
    mlp=3,
    deltanet=6,
    repeats=True,
)
"""CUDA's caching allocator; measured on an H100, reserved at the peak.

Counts are those of autograd: a layer keeps the input of each norm in float32, what the adapted
modules read, the MLP's gate, its activation and up, and q, k, v and the output of fused attention.
The context itself is no part of it: free memory is asked when that exists.
"""
