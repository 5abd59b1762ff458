"""Tell a user's mistake from a bug: a `UserError` is a sentence that needs no traceback."""

from __future__ import annotations


class UserError(ValueError, RuntimeError):
    """One sentence for the user: the value, the limit and the way out. It is printed alone, and the exit code is 2.

    Whoever handles bad values or a machine that cannot do something handles it too, so it is both kinds of error.
    """
