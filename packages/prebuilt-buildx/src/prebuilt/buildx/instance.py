"""The command ``docker buildx`` and the builder that it is to use: asked, before anything starts, whether they can."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prebuilt.buildx.config import BUILDER_SETTING
from prebuilt.core.dockerfile import DockerfileForm
from prebuilt.core.errors import EngineError
from prebuilt.core.tool_process import ToolAnswer, ask_tool

OLDEST_BUILDX = (0, 10)
"""The first with attestations, which are switched off unless asked for.

Source: https://github.com/docker/buildx/releases/tag/v0.10.0
"""

_OLDEST_REPRODUCIBLE = (0, 13)
_OLDEST_LINKING = (0, 10)
_VERSION = re.compile(r"\bv?(\d+)\.(\d+)\b")
_FIELD = re.compile(r"(?P<name>[A-Z][A-Za-z ]*?):\s*(?P<value>.*)")
_INSTALL = "install Docker's plugin buildx (on Debian docker-buildx), or choose another METAFLOW_PREBUILT_BUILD_SERVICE"
_CREATE = "docker buildx create --name {name} --driver docker-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderNode:
    """One daemon of a builder: where it is, and what buildx says of it (``running``, ``inactive``)."""

    endpoint: str = ""
    status: str = ""
    error: str = ""
    buildkit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderInstance:
    """A builder as ``docker buildx inspect`` shows it.

    Attributes:
        docker: Path of the command.
        name: Its name, which is that of a context for the driver ``docker``.
        driver: ``docker``, ``docker-container``, ``kubernetes``, ``remote`` or what newer versions have.
        nodes: Its daemons.
    """

    docker: str
    name: str
    driver: str
    nodes: tuple[BuilderNode, ...] = ()

    @property
    def is_reproducible(self) -> bool:
        """Whether its images of one spec have one digest: BuildKit 0.13 or newer, which rewrites times in layers.

        The driver ``docker`` uses the engine's own exporter, which does not.
        """
        return self.driver != "docker" and self._is_since(_OLDEST_REPRODUCIBLE)

    @property
    def shortcomings(self) -> str:
        """What its images lack, for people; empty where they lack nothing."""
        if self.driver == "docker":
            return (
                "layers are gzip, what is built anew has another digest, there is no cache in a registry, and the image stays in"
                " the engine"
            )
        return (
            ""
            if self.is_reproducible
            else "what is built anew has another digest, since layers have the time of building"
        )

    @property
    def form(self) -> DockerfileForm:
        """What Dockerfiles it knows: BuildKits before 0.10, as engines before 23 have them, know the plain form only."""
        return "buildkit" if self._is_since(_OLDEST_LINKING) else "plain"

    def _is_since(self, oldest: tuple[int, int]) -> bool:
        """Return whether all daemons whose version is known are of `oldest` or newer; those that have yet to start are new.

        So are builds from source, whose version is 0.0.0.
        """
        versions = [_version(node.buildkit) for node in self.nodes]
        return all(version >= oldest for version in versions if version and version > (0, 0))

    def __str__(self) -> str:
        """Return the name and the driver."""
        return f"{self.name} (driver {self.driver})"


def find_instance(name: str | None, environ: Mapping[str, str]) -> BuilderInstance:
    """Return the builder `name`, or buildx's current one for None.

    Raises:
        EngineError: Docker's command line or buildx is missing or too old, there is no such builder, or it is not reachable.
    """
    docker = shutil.which("docker", path=environ.get("PATH"))
    if docker is None:
        raise EngineError(
            "find docker", reason="it is not in PATH", remedy=f"install Docker's command line; then {_INSTALL}"
        )
    _check_version(ask_tool([docker, "buildx", "version"], environ=environ))
    answer = ask_tool([docker, "buildx", "inspect", *([name] if name else [])], environ=environ, timeout_s=60)
    if answer.status != 0:
        raise _unknown(name, answer)
    instance, error = _parse(docker, answer.stdout)
    if error:
        raise EngineError(f"reach buildx's builder {instance.name}", reason=error, remedy=_other_builder(instance.name))
    _check_nodes(instance)
    return instance


def _version(text: str) -> tuple[int, int] | None:
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else None


def _check_version(answer: ToolAnswer) -> None:
    if answer.status != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise EngineError("run docker buildx", reason=said[0] if said else "it is not installed", remedy=_INSTALL)
    version = _version(answer.stdout)
    if version and (0, 0) < version < OLDEST_BUILDX:  # builds from source have no version, or 0.0.0
        raise EngineError(
            "use docker buildx",
            reason=f"its version is {'.'.join(map(str, version))}, and {'.'.join(map(str, OLDEST_BUILDX))} is needed",
            remedy="install a newer one, or choose another METAFLOW_PREBUILT_BUILD_SERVICE",
        )


def _unknown(name: str | None, answer: ToolAnswer) -> EngineError:
    said = [line for line in answer.stderr.splitlines() if line.strip()]
    reason = said[-1].removeprefix("ERROR: ") if said else f"it ended with {answer.status}"
    return EngineError(
        f"find buildx's builder {name}" if name else "find buildx's current builder",
        reason=reason,
        remedy=_other_builder(name or "prebuilt"),
    )


def _other_builder(name: str) -> str:
    create = _CREATE.format(name="prebuilt" if name == "default" else name)
    return f"run `{create}`, or set {BUILDER_SETTING} to one of `docker buildx ls`"


def _check_nodes(instance: BuilderInstance) -> None:
    """Refuse a builder that will not start: others than ``remote`` are started by a build."""
    if any(node.status == "running" for node in instance.nodes):
        return
    errors = [node.error for node in instance.nodes if node.error]
    if instance.driver != "remote" and not errors:
        return
    endpoints = ", ".join(node.endpoint for node in instance.nodes)
    raise EngineError(
        f"reach buildx's builder {instance.name}",
        at=endpoints,
        reason=errors[0] if errors else "no BuildKit answers",
        remedy=f"start it, or set {BUILDER_SETTING} to another of `docker buildx ls`",
    )


def _parse(docker: str, text: str) -> tuple[BuilderInstance, str]:
    """Return the builder, and the error that stands for all of it, from the answer of ``docker buildx inspect``.

    A template for the answer is newer than the oldest version here.
    """
    head, _, rest = text.partition("\nNodes:")
    fields = dict(_fields(head))
    nodes = tuple(
        BuilderNode(
            endpoint=node.get("Endpoint", ""),
            status=node.get("Status", ""),
            error=node.get("Error", ""),
            buildkit=node.get("BuildKit version", "") or node.get("Buildkit", ""),
        )
        for node in (dict(_fields(part)) for part in re.split(r"(?m)^Name:", rest)[1:])
    )
    instance = BuilderInstance(docker=docker, name=fields.get("Name", ""), driver=fields.get("Driver", ""), nodes=nodes)
    return instance, fields.get("Error", "")


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Yield the fields that are not indented; those belong to labels and the like."""
    for line in text.splitlines():
        found = _FIELD.fullmatch(line)
        if found:
            yield found["name"], found["value"].strip()
