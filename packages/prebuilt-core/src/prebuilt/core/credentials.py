"""What crosses from a registry to a builder so that it may push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from prebuilt.core.errors import InvalidValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user name and a secret for one registry. The secret is never in the repr.

    `username` may be empty where `secret` is an identity token (Docker's ``identitytoken``).
    """

    username: str
    secret: str = field(repr=False)
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse an expiry without a time zone."""
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise InvalidValueError("an expiry", self.expires_at, reason="it has no time zone")

    @classmethod
    def published(cls, push_credentials: Mapping[str, Any]) -> Credentials | None:
        """Return ``username`` and ``password`` of what a registry's ``push_credentials()`` gives; None if it has no password."""
        secret = push_credentials.get("password")
        return cls(username=push_credentials.get("username") or "", secret=secret) if secret else None

    @property
    def is_expired(self) -> bool:
        """Whether the expiry has passed."""
        return self.expires_at is not None and self.expires_at <= datetime.now(timezone.utc)


class CredentialsSource(Protocol):
    """Credentials that end before the work may: asked anew whenever some are needed. Concurrent calls are fine."""

    def __call__(self, rejected: Credentials | None = None) -> Credentials:
        """Return credentials that are good now: others than `rejected`, which a registry has refused, if others may help."""
