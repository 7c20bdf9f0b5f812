"""PyPI requirements as Metaflow's decorators give them, in the words of PEP 508."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from prebuilt.core.errors import ResolveError
from prebuilt.core.local_sources import local_path

_OPERATORS = ("<", ">", "=", "!", "~")


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSpec:
    """One requirement.

    Attributes:
        name: Normalised name, without extras.
        text: As PEP 508 has it: ``name[extra]>=1``, ``name @ URL``.
        url: Where it comes from directly; None for one that is looked up in an index.
    """

    name: str
    text: str
    url: str | None = None

    @classmethod
    def parse(cls, name: str, spec: str, *, folder: Path | None = None) -> PypiSpec:
        """Read a name (may carry extras) and a spec: ``1.2`` (that version), ``>=1,<2``, an empty one or ``*`` (any), ``@ URL-or-path``.

        Args:
            name: As the user wrote it.
            spec: As the user wrote it.
            folder: What relative paths are relative to; the working folder, unless given.

        Raises:
            ResolveError: They are not a requirement.
        """
        spec = spec.strip()
        if spec.startswith("@"):
            path = local_path(spec, folder or Path.cwd())
            text = f"{name} @ {spec[1:].strip() if path is None else path.as_uri()}"
        elif spec in {"", "*"}:
            text = name
        else:
            text = name + (spec if spec.startswith(_OPERATORS) else f"=={spec}")
        try:
            parsed = Requirement(text)
        except InvalidRequirement as error:
            raise ResolveError(
                f"read the requirement {name}: {spec!r}",
                reason=str(error).splitlines()[0],
                remedy="write a version (1.2.3), a range (>=1,<2) or '@ URL'",
            ) from error
        return cls(name=canonicalize_name(parsed.name), text=text, url=parsed.url)

    @property
    def needs_build(self) -> bool:
        """Whether it is source code: a repository, a folder or an sdist, given directly."""
        if self.url is None:
            return False
        path = urlsplit(self.url).path
        return "+" in urlsplit(self.url).scheme or not path.endswith(".whl")

    @property
    def conda_version(self) -> str | None:
        """The version part, which conda reads alike; None where there is none or only PyPI has such a thing."""
        specifier = str(Requirement(self.text).specifier)
        return None if not specifier or "===" in specifier or "+" in specifier else specifier
