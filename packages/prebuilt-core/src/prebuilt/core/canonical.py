"""Canonical JSON: one value, one sequence of bytes, one hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

ID_LENGTH = 40
"""Hex digits of an identity; what registries build a tag from. 160 bits, as git's."""


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - whatever json can write
    """Return `value` as UTF-8 JSON with sorted keys and no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def content_id(value: Any) -> str:  # noqa: ANN401 - whatever json can write
    """Return the first 40 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:ID_LENGTH]
