"""Does a claim about hidden states survive? Five steps, their gates fixed before fresh data."""
