"""LoRA adapters in other programs' formats: read, written, merged, and proven by logits."""
