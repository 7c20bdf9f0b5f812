"""Registries in this process, and repositories of them that do not wait between tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

WHOLE_WAITS = Backoff(jitter=lambda: 1.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder without any login."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def waits_s() -> list[float]:
    """What was waited for between tries, without having waited."""
    return []


@pytest.fixture
def open_repository(home: Path, waits_s: list[float]) -> Callable[..., RegistryRepository]:
    """Opens a repository that knows the logins of :func:`home` only and never sleeps."""

    def open_it(
        name: str, *, credentials: Credentials | None = None, environ: dict[str, str] | None = None
    ) -> RegistryRepository:
        settings = Settings({"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), **(environ or {})}, {})
        return RegistryRepository(
            name, credentials=credentials, settings=settings, backoff=WHOLE_WAITS, sleep=waits_s.append
        )

    return open_it


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    close_connections()


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """A registry that lets everybody do everything."""
    with InMemoryRegistry() as server:
        yield server


@pytest.fixture
def guarded_registry() -> Iterator[InMemoryRegistry]:
    """A registry with tokens: ``ada`` with password ``secret`` may do everything, others may pull."""
    auth = RegistryAuth(
        scheme="token", users={"ada": "secret"}, identity_tokens=frozenset({"refresh-me"}), anonymous_pull=True
    )
    with InMemoryRegistry(auth=auth) as server:
        yield server


@pytest.fixture
def repository(registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]) -> RegistryRepository:
    """A repository of :func:`registry`."""
    return open_repository(registry.repository("team/app"))


@pytest.fixture
def pushed_manifest(registry: InMemoryRegistry) -> bytes:
    """The manifest that is there as ``team/app:1``."""
    return push_manifest(registry)


@pytest.fixture
def push() -> Callable[[InMemoryRegistry], bytes]:
    """Puts a manifest into a registry as ``team/app:1``."""
    return push_manifest


def push_manifest(server: InMemoryRegistry) -> bytes:
    """Put one there without a request."""
    config = server.put_blob("team/app", b"{}")
    media_type = "application/vnd.oci.image.manifest.v1+json"
    data = (
        f'{{"schemaVersion":2,"mediaType":"{media_type}",'
        f'"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config.digest}","size":2}},'
        '"layers":[]}'
    ).encode()
    server.put_manifest("team/app", "1", media_type, data)
    return data
