"""Arc 3: does h_last of the frozen base carry correctness that survives fresh prompts?"""
