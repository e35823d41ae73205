"""The evaluation items written for this project: records, and where they lie.

Data cards stand beside the files in ``data/``.
"""
