"""The builder ``site``: the docker command, logged in as its user is."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prebuilt.core.build_service import DockerBuildService


class SiteBuildService(DockerBuildService):
    """Runs ``docker build`` and ``docker push``. Options of the site are in ``SITE_BUILD_OPTIONS``."""

    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` in a folder of its own and push it as `image_tag`; return False if that failed."""
        options = shlex.split(os.environ.get("SITE_BUILD_OPTIONS", ""))
        if target_platform:
            options += ["--platform", target_platform]
        with tempfile.TemporaryDirectory(prefix="site-images-") as folder:
            write_context(Path(folder), {"Dockerfile": dockerfile, **context_files})
            built = run(["docker", "build", *options, "--tag", image_tag, folder], echo)
        return built and run(["docker", "push", image_tag], echo)


def write_context(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write `files`, by POSIX name, into `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def run(command: list[str], echo: Callable[..., None]) -> bool:
    """Run `command`, pass on each line as it comes, and return whether it succeeded."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            echo(line.rstrip())
    return process.returncode == 0
