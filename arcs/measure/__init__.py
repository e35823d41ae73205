"""``threearc measure``: instruments that need no judge, on a base and its edits."""
