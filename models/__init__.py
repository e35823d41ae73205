"""What a model is: registry, model directories, chat encoding, GGUF files."""
