"""The builder ``__name__``."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prebuilt.core.build_service import DockerBuildService

_TIMEOUT_S = 1800  # the longest that builds may take on the slowest of the builders that were published before


class __Title__BuildService(DockerBuildService):
    """Builds and pushes with ``__name__ build --push``."""

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` in a folder of its own and push it as `image_tag`; return False if that failed."""
        del push_credentials  # the command uses Docker's own configuration
        platform = ("--platform", target_platform) if target_platform else ()
        with tempfile.TemporaryDirectory(prefix="prebuilt-__name__-") as folder:
            write_context(Path(folder), {"Dockerfile": dockerfile, **context_files})
            command = ("__name__", "build", "--push", "--tag", image_tag, *platform, folder)
            result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if result.returncode != 0:
            echo("\n".join(result.stderr.splitlines()[-50:]))
        return result.returncode == 0


def write_context(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write `files`, by POSIX name, into `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


_: type[DockerBuildService] = __Title__BuildService
