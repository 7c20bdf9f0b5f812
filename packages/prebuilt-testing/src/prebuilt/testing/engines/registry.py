"""A real registry: the distribution project's, as a process on loopback; Debian's release of it, or the current one."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.golang import build_programs
from prebuilt.testing.engines.process import find_program, free_port, running

VERSION = "v3.1.2"
_MODULE = "github.com/distribution/distribution/v3"

_CONFIG = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: "{folder}/data"}}
  delete: {{enabled: true}}
http: {{addr: "{host}"}}
auth: {auth}
"""
_UNAUTHORIZED = 401


@contextlib.contextmanager
def distribution_registry(
    folder: Path,
    *,
    address: str = "127.0.0.1",
    auth: Mapping[str, object] | None = None,
    release: Literal["installed", "current"] = "installed",
) -> Iterator[str]:
    """Give ``address:port`` of an empty registry.

    Args:
        folder: What its data and configuration are below.
        address: Where it listens.
        auth: That section of its configuration; without one it asks nobody.
        release: The machine's ``docker-registry`` (release 2 in Debian 12), or release 3, built and kept.

    Raises:
        EngineError: The program is not installed, or cannot be built.
    """
    program = str(registry_program()) if release == "current" else _installed()
    host = f"{address}:{free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "registry.yml"
    config.write_text(_CONFIG.format(folder=folder, host=host, auth=json.dumps(auth or {})), encoding="utf-8")
    with running([program, "serve", str(config)], log=folder / "registry.log", ready=lambda: _answers(host)):
        yield host


def registry_program() -> Path:
    """Return the program of the current release. Building it takes a minute or two the first time.

    Raises:
        EngineError: The module or Go cannot be got, or the build failed.
    """
    return kept(f"distribution-{VERSION}", _build) / "registry"


def _build(folder: Path) -> None:
    version = {f"{_MODULE}/version.version": VERSION}
    build_programs(f"{_MODULE}@{VERSION}", "./cmd/registry", folder=folder, values=version)


def _installed() -> str:
    return find_program("docker-registry", brought_by="apt-get install docker-registry")


def _answers(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/", timeout=1) as response:
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == _UNAUTHORIZED
    except (urllib.error.URLError, OSError):
        return False
