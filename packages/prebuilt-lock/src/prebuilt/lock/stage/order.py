"""What the program of a build stage is told beside the layers: a file of the context, the same for every lock of its kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from prebuilt.core.canonical import canonical_json
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import Wheel, read_package
from prebuilt.core.platforms import Platform
from prebuilt.lock.installer import LinkScripts

ORDER = "stage.json"
"""Its name in the context."""

CERTIFICATES = "certificates.pem"
"""Name in the context of the authorities that are trusted beside those of the build stage's image; it need not be there."""

TOOLS = "tools"
"""Folder, in the context and beside the program, of the program's tools."""

PACKAGES = "packages"
"""Folder, in the context and beside the program, of packages that came along, by SHA-256."""

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOrder:
    """How the program is to work.

    Attributes:
        python: X.Y of the build stage's Python: its tools are for that, and it compiles the layers' bytecode.
        tools: What the program imports beside the standard library, for each platform that it may run on.
        link_scripts: What a conda package with link scripts causes.
    """

    python: str
    tools: Mapping[Platform, tuple[Wheel, ...]]
    link_scripts: LinkScripts

    def to_bytes(self) -> bytes:
        """Return the file: the same order, the same bytes. The inverse of :meth:`parse`."""
        return canonical_json(
            {
                "format": _FORMAT,
                "python": self.python,
                "tools": {
                    str(platform): [asdict(wheel) for wheel in wheels] for platform, wheels in self.tools.items()
                },
                "link_scripts": self.link_scripts,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> StageOrder:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            InvalidValueError: It is damaged, or of another format.
        """
        try:
            raw = json.loads(data)
            if raw["format"] != _FORMAT:
                raise InvalidValueError(
                    "the order of a build stage", raw["format"], reason=f"its format is not {_FORMAT}"
                )
            return cls(
                python=raw["python"],
                tools={Platform.parse(name): tuple(map(_wheel, wheels)) for name, wheels in raw["tools"].items()},
                link_scripts=raw["link_scripts"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidValueError):
                raise
            raise InvalidValueError(
                "the order of a build stage", data[:80], reason=f"{type(error).__name__} {error}"
            ) from error


def _wheel(data: Mapping[str, object]) -> Wheel:
    package = read_package(data)
    if not isinstance(package, Wheel):
        raise TypeError(f"{package.name} is no wheel")
    return package
