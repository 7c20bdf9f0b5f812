"""The one place where errors of ``prebuilt`` become what Metaflow prints: one clean message, no traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from metaflow_extensions.prebuilt.plugins.conda.asked import PrebuiltEnvironmentException
from prebuilt.core.errors import PrebuiltError


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
