"""Training data written by teachers: prompts, four stages, failures, pairs, boundary cases."""
