"""A grid of runs: each a normal, resumable run, merged into one report."""
