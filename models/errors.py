"""The errors a user can cause or must act on: one line, never a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can fix.

    The message is one line that says what is wrong, where, and what to do. The
    command line prints it after ``error:`` and exits with status 2.
    """


class CapabilityError(UserError):
    """An engine was asked for something it cannot do; the message names both."""
