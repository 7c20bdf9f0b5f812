"""The one place where errors of ``prebuilt`` become what Metaflow prints: one clean message, no traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from metaflow.exception import MetaflowException

from metaflow_extensions.prebuilt.plugins.conda.asked import PrebuiltEnvironmentException
from prebuilt.core.errors import PrebuiltError, RateLimitedError, RegistryError, RegistryUnreachableError

_SERVER_ERROR = 500


@contextlib.contextmanager
def clean_errors() -> Iterator[None]:
    """Turn a :class:`PrebuiltError`, or Ctrl-C, in the body into a ``MetaflowException`` with the same words.

    Raises:
        PrebuiltEnvironmentException: In place of either.
    """
    try:
        yield
    except PrebuiltError as error:
        # Metaflow prints a pair of asterisks as emphasis and drops them, which would turn 1.* into 1.
        raise PrebuiltEnvironmentException(str(error).replace("*", "\N{ASTERISK OPERATOR}")) from error
    except KeyboardInterrupt:
        raise PrebuiltEnvironmentException("stopped; what is finished is kept and used next time") from None


def may_pass(error: MetaflowException) -> bool:
    """Return whether what an error of :func:`clean_errors` reports may be over by itself: a registry that is away, or has too much to do."""
    cause = error.__cause__
    if isinstance(cause, RegistryError):
        is_away = isinstance(cause, (RateLimitedError, RegistryUnreachableError))
        return is_away or (cause.status or 0) >= _SERVER_ERROR
    return False
