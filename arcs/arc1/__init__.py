"""Arc 1: does a LoRA on disposition data change behaviour without costing capability?"""
