"""``threearc eval``: one base and its edits, quantised, at several n_predict, in one table."""
