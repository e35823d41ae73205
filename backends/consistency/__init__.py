"""Do the engines on this machine compute the same? Measured on one model, quantity by quantity."""
