"""GGUF files: made from a model directory, and read for what they say about themselves."""
