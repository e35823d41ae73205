"""``threearc bench``: our engines beside their libraries' own calls, by turns."""
