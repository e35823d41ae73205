"""Data sets as files: showing, checking, splitting, comparing and importing them."""
