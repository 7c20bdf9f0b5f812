"""uv's own configuration, as far as it says where packages come from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError
from prebuilt.lock.url_credentials import with_credentials

_INDEX_KEYS = ("index", "index-url", "extra-index-url", "find-links", "no-index")
_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)")


def config_files(environ: Mapping[str, str], home: Path, folder: Path) -> Iterator[Path]:
    """Yield the configuration files that uv would read when it runs in `folder`, highest priority first.

    Source: https://docs.astral.sh/uv/concepts/configuration-files/
    """
    if environ.get("UV_NO_CONFIG", "").lower() in {"1", "true", "yes", "on"}:
        return
    if environ.get("UV_CONFIG_FILE"):
        yield Path(environ["UV_CONFIG_FILE"])
        return
    for parent in (folder, *folder.parents):
        own, project = parent / "uv.toml", parent / "pyproject.toml"
        if own.is_file() or (project.is_file() and _table(project)):
            yield own if own.is_file() else project
            break
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv" / "uv.toml"
    for system in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(system) / "uv" / "uv.toml"
    yield Path("/etc/uv/uv.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class UvConfig:
    """What uv's configuration says of indexes.

    Attributes:
        names_indexes: Whether it says anything about where packages come from; pip's configuration is then not consulted for that.
        indexes: URLs it names, with credentials where they hold any; the default index last.
        find_links: Places from the environment; those in files reach uv by themselves.
        keyring: ``subprocess``, ``disabled``, or None where nothing is said.
        insecure_hosts: Hosts that need no valid certificate.
    """

    names_indexes: bool
    indexes: tuple[str, ...] = field(repr=False)
    find_links: tuple[str, ...]
    keyring: str | None
    insecure_hosts: tuple[str, ...]

    @classmethod
    def load(cls, environ: Mapping[str, str], home: Path, folder: Path) -> UvConfig:
        """Read ``UV_*`` variables and the files for a uv that runs in `folder`.

        Raises:
            SettingError: A file is not TOML.
        """
        tables = [_flat(_table(path)) for path in config_files(environ, home, folder) if path.is_file()]
        in_environ = [
            *_named_urls(environ.get("UV_INDEX", ""), environ),
            *environ.get("UV_EXTRA_INDEX_URL", "").split(),
            *_named_urls(environ.get("UV_DEFAULT_INDEX", ""), environ),
            *environ.get("UV_INDEX_URL", "").split(),
        ]
        find_links = tuple(place for place in environ.get("UV_FIND_LINKS", "").split(",") if place)
        in_files = [url for table in tables for url in _urls_of(table, environ)]
        says = any(key in table for table in tables for key in _INDEX_KEYS) or environ.get("UV_NO_INDEX")
        keyring = environ.get("UV_KEYRING_PROVIDER") or next(
            (t["keyring-provider"] for t in tables if "keyring-provider" in t), None
        )
        insecure = [host for table in tables for host in table.get("allow-insecure-host", ())]
        return cls(
            names_indexes=bool(says or in_environ or find_links),
            indexes=(*in_environ, *in_files),
            find_links=find_links,
            keyring=keyring,
            insecure_hosts=(*environ.get("UV_INSECURE_HOST", "").split(), *insecure),
        )


def _table(path: Path) -> dict[str, Any]:
    """Return what is uv's in a ``uv.toml`` or ``pyproject.toml``."""
    # Not above: the build stage of a Dockerfile has no third-party package, and reads no configuration.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError("uv's configuration", at=str(path), reason=str(error), remedy="mend the file") from error
    return dict(data.get("tool", {}).get("uv", {})) if path.name == "pyproject.toml" else data


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with its ``pip`` part, which wins for ``uv pip``, laid over it."""
    return {**table, **table.get("pip", {})}


def _urls_of(table: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    for index in sorted(table.get("index", ()), key=lambda index: bool(index.get("default"))):
        yield _with_named_credentials(index.get("name", ""), index["url"], environ)
    yield from table.get("extra-index-url", ())
    if "index-url" in table:
        yield table["index-url"]


def _named_urls(value: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Read ``UV_INDEX`` or ``UV_DEFAULT_INDEX``: ``URL`` or ``name=URL``, separated by white space."""
    for word in value.split():
        named = _NAMED.fullmatch(word)
        yield _with_named_credentials(named[1], named[2], environ) if named else word


def _with_named_credentials(name: str, url: str, environ: Mapping[str, str]) -> str:
    """Put ``UV_INDEX_<NAME>_USERNAME`` and ``_PASSWORD`` into `url`."""
    prefix = "UV_INDEX_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    username, secret = environ.get(f"{prefix}_USERNAME", ""), environ.get(f"{prefix}_PASSWORD", "")
    return (
        with_credentials(url, Credentials(username=username, secret=secret)) if name and (username or secret) else url
    )
