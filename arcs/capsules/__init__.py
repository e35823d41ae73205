"""A finished run's claim in one file, and its replay on another machine."""
