"""``threearc paper MODEL``: what the paper ran on a model, run here, beside its numbers."""
