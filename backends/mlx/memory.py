"""What MLX keeps and wastes in training, measured (docs/bench.md); imports no MLX.

Its graph keeps one vector of the hidden width and one of q, k, v and o_proj's input fewer than
torch's, and on a CPU the softmax of attention, which is not fused there. A recomputed layer is
evaluated beside the gradients of its neighbours: four layers' worth at the peak, not one.
"""

from backends.memory import MemoryModel

MODEL = MemoryModel(
    runtime=350 << 20,
    slack=1.0,
    layer_slack=3.0,
    head_elements=1 << 23,  # loss.CHUNK_BYTES in float32
    head_copies=5,
    hidden=5,
    attention=2,
    scores=1,
)


def memory_model() -> MemoryModel:
    """What training keeps; measured on a CPU only."""
    return MODEL
