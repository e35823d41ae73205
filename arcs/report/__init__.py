"""What a run found, for people: one page, one comparison, one flat list of numbers."""
