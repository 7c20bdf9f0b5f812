"""A real registry: the distribution project's, as a process on loopback."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from prebuilt.testing.engines.process import find_program, free_port, running

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
    folder: Path, *, address: str = "127.0.0.1", auth: Mapping[str, object] | None = None
) -> Iterator[str]:
    """Give ``address:port`` of an empty registry whose data is below `folder`.

    `auth` is its section of the configuration; without one it asks nobody.

    Raises:
        EngineError: The program ``docker-registry`` is not installed.
    """
    program = find_program("docker-registry", brought_by="apt-get install docker-registry")
    host = f"{address}:{free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "registry.yml"
    config.write_text(_CONFIG.format(folder=folder, host=host, auth=json.dumps(auth or {})), encoding="utf-8")
    with running([program, "serve", str(config)], log=folder / "registry.log", ready=lambda: _answers(host)):
        yield host


def _answers(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/", timeout=1) as response:
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == _UNAUTHORIZED
    except (urllib.error.URLError, OSError):
        return False
