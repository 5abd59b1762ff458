"""Tell a user's mistake from a bug: a `UserError` is a sentence that needs no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError, RuntimeError):
    """One sentence for the user: the value, the limit and the way out. It is printed alone.

    Whoever handles bad values or a machine that cannot do something handles it too, so it is both kinds of error.
    """


@contextmanager
def as_user_error() -> Iterator[None]:
    """Around checks of what a user gave, by code below `factory`: its refusals are sentences for the user."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
