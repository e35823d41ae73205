"""``threearc doctor``: what of threearc works on this machine, what does not, and why."""
