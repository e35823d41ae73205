"""``python -m arcs.cli``: the ``threearc`` command without its script."""

from arcs.cli import main

if __name__ == "__main__":
    main()
