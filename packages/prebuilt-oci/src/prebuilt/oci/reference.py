"""References to images: ``repository:tag`` and ``repository@digest``, in registries and in image layouts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.descriptor import check_digest
from prebuilt.core.errors import InvalidValueError

LAYOUT_PREFIX = "oci:"
"""What the name of a repository begins with that is an image layout; an absolute path follows."""

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"

# Source: https://github.com/distribution/reference/blob/main/regexp.go, and for tags
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*")
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_MAX_NAME_LENGTH = 255
_DOCKER_HUB_ALIASES = frozenset({"index.docker.io", DEFAULT_HOST})


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by tag, by digest, or by both, in which case the digest decides.

    Attributes:
        repository: ``host[:port]/path`` in full (``docker.io/library/python``), or ``oci:`` and an absolute folder.
        tag: None only if there is a digest.
        digest: None if the tag decides.
    """

    repository: str
    tag: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        """Check all parts."""
        if parse_repository(self.repository) != self.repository:
            raise InvalidValueError("a repository", self.repository, reason="it is not written in full")
        if self.tag is None and self.digest is None:
            raise InvalidValueError("a reference", self.repository, reason="it has neither a tag nor a digest")
        if self.tag is not None:
            check_tag(self.tag)
        if self.digest is not None:
            check_digest(self.digest)

    def __str__(self) -> str:
        """Return the full form; the inverse of :func:`parse_reference`."""
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.repository}{tag}{digest}"

    @property
    def identifier(self) -> str:
        """What to ask the repository for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_digest(self, digest: str) -> Reference:
        """Return the reference to `digest` in the same repository, without a tag."""
        return Reference(self.repository, digest=digest)


def check_tag(tag: str) -> str:
    """Return `tag` if registries accept it as one."""
    if not _TAG.fullmatch(tag):
        raise InvalidValueError(
            "a tag", tag, reason="expected at most 128 of A-Z a-z 0-9 _ . - and neither . nor - first"
        )
    return tag


def is_layout(repository: str) -> bool:
    """Return whether a repository's name is that of an image layout on this machine."""
    return repository.startswith(LAYOUT_PREFIX)


def layout_folder(repository: str) -> Path:
    """Return the folder of a repository for which :func:`is_layout` holds."""
    return Path(parse_repository(repository).removeprefix(LAYOUT_PREFIX))


def split_repository(repository: str) -> tuple[str, str]:
    """Return host (with its port) and path of a repository in a registry: ``("docker.io", "library/python")``."""
    full = parse_repository(repository)
    if is_layout(full):
        raise InvalidValueError("a repository in a registry", repository, reason="it is an image layout")
    host, _, path = full.partition("/")
    return host, path


def has_host(text: str) -> bool:
    """Return whether what names an image begins with a host, which its first part is if it has a dot, a colon or upper case, or is ``localhost``.

    Anything else is a repository of Docker Hub to Docker.
    """
    first, slash, _ = text.partition("/")
    return bool(slash) and (bool(set(first) & {".", ":"}) or first == "localhost" or first != first.lower())


def parse_repository(text: str) -> str:
    """Return the full form of a repository's name, without tag and digest: ``python`` is ``docker.io/library/python``.

    Raises:
        InvalidValueError: It cannot name a repository.
    """
    return _layout_name(text) if is_layout(text) else _registry_name(text)


def parse_reference(text: str) -> Reference:
    """Read a reference as Docker does: no host means Docker Hub, no tag and no digest mean ``latest``.

    ``oci:/folder:tag`` and ``oci:/folder@sha256:…`` are images in an image layout.

    Raises:
        InvalidValueError: It is not a reference.
    """
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    name = f"{head}{slash}{last}"
    try:
        return Reference(
            parse_repository(name),
            tag=tag if colon else (None if at else DEFAULT_TAG),
            digest=digest if at else None,
        )
    except InvalidValueError as error:
        raise InvalidValueError("an image reference", text, reason=error.reason, remedy=error.remedy) from error


def _layout_name(text: str) -> str:
    folder = text.removeprefix(LAYOUT_PREFIX)
    if not folder.startswith("/"):
        raise InvalidValueError(
            "an image layout", text, reason="its folder is not absolute", remedy="write oci:/folder"
        )
    clean = folder.rstrip("/")
    if not clean or ":" in clean.rpartition("/")[2] or "@" in clean:
        raise InvalidValueError("an image layout", text, reason="a folder's name has no @, and no : in its last part")
    return f"{LAYOUT_PREFIX}{clean}"


def _registry_name(text: str) -> str:
    if "://" in text:
        raise InvalidValueError(
            "a repository", text, reason="it is a URL", remedy="leave the scheme away: host/repository"
        )
    host, path = _split_host(text)
    if not _HOST.fullmatch(host):
        raise InvalidValueError("a repository", text, reason=f"{host!r} is not a host name")
    if not _PATH.fullmatch(path):
        reason = "upper-case letters are not allowed" if path != path.lower() else "a name is of a-z 0-9 . _ - and /"
        raise InvalidValueError("a repository", text, reason=reason)
    if len(host) + 1 + len(path) > _MAX_NAME_LENGTH:
        raise InvalidValueError("a repository", text, reason=f"it has more than {_MAX_NAME_LENGTH} characters")
    return f"{host}/{path}"


def _split_host(text: str) -> tuple[str, str]:
    first, _, rest = text.partition("/")
    if not has_host(text):
        first, rest = DEFAULT_HOST, text
    if first in _DOCKER_HUB_ALIASES:
        return DEFAULT_HOST, rest if "/" in rest else f"library/{rest}"
    return first, rest
