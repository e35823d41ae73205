"""``threearc settle``: more items for a claim that too few could not decide, looked at by a plan."""
