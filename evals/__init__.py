"""How behaviour is scored."""
