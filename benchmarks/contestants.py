"""Ways to bake one environment and push it: ours, and the best that a Dockerfile can do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from environments import requirement_lines

from prebuilt.core.documents import FolderDocuments
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.registry import RepositoryRegistry
from prebuilt.testing.engines.buildkit import BuildKit
from prebuilt.testing.peak_memory import PeakMemory

HERE = Path(__file__).parent

# What the index and its proxy need inside a build, taken from this machine.
_BUILD_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)

UV_DOCKERFILE = """\
FROM {base_with_uv} AS build
SHELL ["/bin/bash", "-c"]
{arguments}
COPY requirements.txt /requirements.txt
RUN uv venv -q --python /usr/local/bin/python3 /opt/env && \\
    uv pip install -q --no-cache --link-mode=copy --compile-bytecode --python /opt/env/bin/python -r /requirements.txt
FROM {base}
COPY --from=build /opt/env /opt/env
ENV PATH=/opt/env/bin:$PATH
"""

PIP_DOCKERFILE = """\
FROM {base}
SHELL ["/bin/bash", "-c"]
{arguments}
COPY requirements.txt /requirements.txt
RUN export PIP_CERT=/etc/ssl/certs/ca-certificates.crt && \\
    /usr/local/bin/python3 -m venv /opt/env && /opt/env/bin/pip install -q --no-cache-dir -r /requirements.txt
ENV PATH=/opt/env/bin:$PATH
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one bake took: seconds of wall time, and the peak memory of its processes where that was watched."""

    seconds: float
    peak_bytes: int | None = None
    reference: str = ""


def know_base(base: str, *, repository: str, cache: Path) -> None:
    """Let the native builder read about the base image, once for a repository, as BuildKit pulls it once."""
    settings = Settings({**os.environ, **_native_variables(cache)}, {})
    kept = FolderDocuments(cache_dir(settings) / "documents")
    BaseImageLookup(settings, RepositoryRegistry(repository).documents(), kept).get(base, Platform.host())


def bake_natively(
    packages: Mapping[str, str], *, repository: str, base: str, cache: Path, watch_memory: bool = False
) -> Result:
    """Bake with the native builder in a process of its own, whose caches are below `cache`.

    To watch its memory takes a tenth of a processor, so a bake that is timed is not watched.
    """
    command = [sys.executable, str(HERE / "native_bake.py"), repository, base]
    environ = {**os.environ, **_native_variables(cache)}
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [*command, *(f"{name}=={version}" for name, version in packages.items())],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    memory = PeakMemory(process.pid) if watch_memory else None
    output, errors = process.communicate()
    seconds = time.perf_counter() - began_s
    peak = memory.stop() if memory else None
    _check(process.returncode, "native", errors)
    return Result(seconds=seconds, peak_bytes=peak, reference=json.loads(output)["reference"])


def _native_variables(cache: Path) -> dict[str, str]:
    return {
        "METAFLOW_PREBUILT_CACHE_DIR": str(cache / "prebuilt"),
        "UV_CACHE_DIR": str(cache / "uv"),
        "METAFLOW_HOME": str(cache / "metaflow"),
    }


def bake_with_buildkit(
    packages: Mapping[str, str], *, buildkit: BuildKit, name: str, base: str, base_with_uv: str, folder: Path
) -> Result:
    """Bake with uv in two stages on a remote BuildKit, zstd, bytecode compiled, nothing cached but the base images."""
    arguments = dict(_build_arguments())
    dockerfile = UV_DOCKERFILE.format(base=base, base_with_uv=base_with_uv, arguments=_declare(arguments))
    context = _context(folder, dockerfile, packages)
    command = [
        *(str(buildkit.buildctl), "--addr", buildkit.address, "build", "--frontend=dockerfile.v0", "--no-cache"),
        *(f"--local=context={context}", f"--local=dockerfile={context}"),
        *("--allow=network.host", "--opt=force-network-mode=host"),
        *(f"--opt=build-arg:{key}={value}" for key, value in arguments.items()),
        f"--output=type=image,name={name},push=true,compression=zstd,oci-mediatypes=true",
    ]
    return _timed(command, "buildkit")


def bake_with_docker(
    packages: Mapping[str, str], *, environ: Mapping[str, str], name: str, base: str, folder: Path
) -> Result:
    """Bake with pip and the classic builder of a Docker Engine, then push."""
    arguments = dict(_build_arguments())
    context = _context(folder, PIP_DOCKERFILE.format(base=base, arguments=_declare(arguments)), packages)
    build_arguments = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    build = ["docker", "build", "--no-cache", "--network=host", *build_arguments, "-t", name, str(context)]
    classic = {**environ, "DOCKER_BUILDKIT": "0"}
    built = _timed(build, "docker build", classic)
    pushed = _timed(["docker", "push", "-q", name], "docker push", classic)
    return Result(seconds=built.seconds + pushed.seconds)


def _build_arguments() -> Iterator[tuple[str, str]]:
    for name in _BUILD_VARIABLES:
        if os.environ.get(name):
            yield name, os.environ[name]


def _declare(arguments: Mapping[str, str]) -> str:
    return "\n".join(f"ARG {name}" for name in arguments)


def _context(folder: Path, dockerfile: str, packages: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    (folder / "requirements.txt").write_text(requirement_lines(dict(packages)), encoding="utf-8")
    return folder


def _timed(command: list[str], what: str, environ: Mapping[str, str] | None = None) -> Result:
    began_s = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    _check(done.returncode, what, done.stdout + done.stderr)
    return Result(seconds=time.perf_counter() - began_s)


def _check(returncode: int, what: str, output: str) -> None:
    if returncode:
        tail = "\n".join(output.splitlines()[-50:])
        message = f"{what} failed with {returncode}:\n{tail}"
        raise RuntimeError(message)
