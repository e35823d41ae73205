"""``threearc judge``: judges, and how far they can be believed."""
