"""What tasks need to know of a base image, as it is kept. How it is found out is in :mod:`prebuilt.oci.base_scan`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.spec import BasePython


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """Facts about one image, which never change.

    Attributes:
        platform: ``os/architecture`` of its config; the variant is one that all machines of it run.
        layer_count: Layers it has.
        glibc: Version of its GNU C library, ``2.36``; None if it has none.
        has_musl: Whether it has musl.
        python: Its interpreter that is called ``python3``, with its standard library; None if there is none.
        commands: Which of ``bash`` and ``tar`` are on its PATH.
    """

    platform: str
    layer_count: int
    glibc: str | None
    has_musl: bool
    python: BasePython | None
    commands: frozenset[str]

    def to_bytes(self) -> bytes:
        """Return the document that is kept; the inverse of :meth:`parse`."""
        python = {"path": self.python.path, "version": self.python.version} if self.python else None
        return canonical_json(
            {
                "platform": self.platform,
                "layer_count": self.layer_count,
                "glibc": self.glibc,
                "has_musl": self.has_musl,
                "python": python,
                "commands": sorted(self.commands),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> BaseFacts:
        """Read a kept document.

        Raises:
            InvalidValueError: It is not one.
        """
        try:
            value: Mapping[str, Any] = json.loads(data)
            python = value["python"]
            return cls(
                platform=str(value["platform"]),
                layer_count=int(value["layer_count"]),
                glibc=value["glibc"],
                has_musl=bool(value["has_musl"]),
                python=BasePython(path=str(python["path"]), version=str(python["version"])) if python else None,
                commands=frozenset(value["commands"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValueError("facts about a base image", data[:100], reason=repr(error)) from error
