"""Texts in the lines that Metaflow hands to a container's shell."""

from __future__ import annotations

import shlex


def within_quotes(line: str) -> str:
    """Return `line` as it has to be written for ``shlex.split('bash -c "…"')``, which all lines go through, to read it back.

    Source: metaflow/plugins/aws/batch/batch.py, _command
    """
    return line.replace("\\", "\\\\").replace('"', '\\"')


def word(text: str) -> str:
    """Return `text` as one word of such a line, whatever is in it."""
    return within_quotes(shlex.quote(text))
