"""Recomputation of the paper's numbers from its published files, beside what it prints."""
