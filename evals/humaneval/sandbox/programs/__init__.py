"""The two programs that bare interpreters run: the candidate's worker, and the checker.

They import the standard library and each other, nothing else of this project, because the
worker's sandbox shows it this folder and Python's own library only.
"""
