"""``threearc settle``: more items for a claim that too few left open, looked at by a plan."""
