"""Cooking answers held against the reference that ships (evals/items/data/french_cuisine.toml)."""
