"""What the report shows of each instrument of ``threearc measure``."""
