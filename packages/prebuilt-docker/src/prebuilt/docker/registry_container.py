"""A registry of this machine's own: a container that is started when it is first needed, and stays."""

from __future__ import annotations

import contextlib
import http.client
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prebuilt.core.errors import EngineError, RegistryError, RegistryUnreachableError
from prebuilt.core.settings import Settings
from prebuilt.docker.config import IMAGE, PORT, PUSH, LocalRegistryConfig
from prebuilt.docker.endpoint import Endpoint

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

NAME = "metaflow-prebuilt-registry"
"""Of the container and of its volume."""
LABEL = "metaflow-prebuilt.registry"

_LOOPBACK = "127.0.0.1"
_PORT_INSIDE = "5000/tcp"
_ANSWER_TIMEOUT_S = 2.0
_START_TIMEOUT_S = 30.0
_LOOK_AGAIN_S = 0.1
_SHOWN_LINES = 20
_CONFLICT = 409
_TAKEN = ("already allocated", "already in use", "address in use")  # the engine's words, and the system's in its mouth

_log = logging.getLogger(__name__)  # warnings reach who deploys: a registry is given no progress to tell


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryContainer:
    """The container, wherever it is in its life. Several processes may ask for it at once: they meet in one."""

    config: LocalRegistryConfig
    settings: Settings
    start_timeout_s: float = _START_TIMEOUT_S

    def ensure(self) -> str:
        """Return ``127.0.0.1:port`` of a registry that answers: what listens on the port that is set, else our container.

        The engine is asked only where no registry answers on that port. The container is made, or started again, as is needed.

        Raises:
            RegistryError: There is no engine, or the container cannot be made, or started, or does not answer.
        """
        host = f"{_LOOPBACK}:{self.config.port}"
        if is_registry(host):
            return host
        self._check_engine_is_here()
        from prebuilt.docker.engine import connect

        try:
            client = connect(self.settings)
        except EngineError as error:
            raise RegistryUnreachableError(
                "start the local registry",
                at=error.at,
                reason=f"no registry answers on {host}, and a container with one needs Docker: {error.reason}",
                remedy=f"{error.remedy}; or name a registry with METAFLOW_{PUSH}",
            ) from error
        with contextlib.closing(client), _explained("start the local registry", NAME):
            return self._ensure_container(client)

    def _check_engine_is_here(self) -> None:
        endpoint = Endpoint.find(self.settings.environ)
        if not endpoint.is_here:
            raise RegistryUnreachableError(
                "start the local registry",
                at=str(endpoint),
                reason="that engine is on another machine, whose loopback is not ours",
                remedy=f"start a registry there, and name it with METAFLOW_{PUSH}",
            )

    def _ensure_container(self, client: docker.DockerClient) -> str:
        container = self._find_or_create(client)
        is_new = container.status == "created"
        self._start(container)
        host = f"{_LOOPBACK}:{_published_port(container)}"
        self._wait(container, host)
        if is_new:
            _log.warning(
                "prebuilt: images are kept in the container %s, which was started on %s and stays; METAFLOW_%s names another registry",
                *(NAME, host, PUSH),
            )
        return host

    @staticmethod
    def _find(client: docker.DockerClient) -> Container | None:
        from docker.errors import NotFound

        try:
            container = client.containers.get(NAME)
        except NotFound:
            return None
        if LABEL not in container.labels:
            raise RegistryError(
                "start the local registry",
                at=NAME,
                reason="there is a container of that name which metaflow-prebuilt did not make",
                remedy=f"rename or remove it, or name a registry with METAFLOW_{PUSH}",
            )
        return container

    def _find_or_create(self, client: docker.DockerClient) -> Container:
        from docker.errors import APIError, ImageNotFound

        has_pulled, deadline_s = False, time.monotonic() + self.start_timeout_s
        while True:
            container = self._find(client)
            if container is not None:
                return container
            try:
                return self._create(client)
            except ImageNotFound:
                if has_pulled:
                    raise
                self._pull(client)
                has_pulled = True
            except APIError as error:
                # Another process is faster: the name is taken a moment before the container can be seen.
                if error.status_code != _CONFLICT or time.monotonic() > deadline_s:
                    raise
                time.sleep(_LOOK_AGAIN_S)

    def _create(self, client: docker.DockerClient) -> Container:
        return client.containers.create(
            self.config.image,
            name=NAME,
            labels={LABEL: "local"},
            ports={_PORT_INSIDE: (_LOOPBACK, self.config.port)},
            volumes={NAME: {"bind": "/var/lib/registry", "mode": "rw"}},
            environment={"REGISTRY_STORAGE_DELETE_ENABLED": "true"},
            restart_policy={"Name": "unless-stopped"},
        )

    def _pull(self, client: docker.DockerClient) -> None:
        from docker.errors import APIError
        from docker.utils import parse_repository_tag

        image = self.config.image
        _log.warning("prebuilt: pulling %s for the local registry", image)
        repository, tag = parse_repository_tag(image)
        try:
            lines = list(client.api.pull(repository, tag=tag or "latest", stream=True, decode=True))
            failure = next((str(line["error"]) for line in lines if "error" in line), None)
        except APIError as error:
            failure = str(error.explanation or error)
        if failure is not None:
            raise RegistryError(
                "pull the image of the local registry",
                at=image,
                reason=failure,
                remedy=f"load it into the engine (docker load), or set METAFLOW_{IMAGE} to a copy that can be pulled",
            )

    def _start(self, container: Container) -> None:
        from docker.errors import APIError

        try:
            if container.status == "paused":
                container.unpause()
            elif container.status != "running":
                container.start()
        except APIError as error:
            explanation = str(error.explanation or error)
            if not any(words in explanation for words in _TAKEN):
                raise
            # What was never started, or cannot be any more, is in the way of one with another port. Its volume stays.
            with contextlib.suppress(APIError):
                container.remove()
            raise RegistryError(
                "start the local registry",
                at=f"{_LOOPBACK}:{_published_port(container)}",
                reason=f"something else than a registry has that port: {explanation}",
                remedy=f"stop what listens there, or set METAFLOW_{PORT} to another port",
            ) from error

    def _wait(self, container: Container, host: str) -> None:
        """Return when the registry answers; raise with its last lines where it ended or takes too long."""
        deadline_s = time.monotonic() + self.start_timeout_s
        while not is_registry(host):
            container.reload()
            if container.status in {"exited", "dead"}:
                raise self._silent(container, host, f"it ended with {container.attrs['State'].get('ExitCode')}")
            if time.monotonic() > deadline_s:
                raise self._silent(container, host, f"it does not answer within {self.start_timeout_s:.0f} s")
            time.sleep(_LOOK_AGAIN_S)

    @staticmethod
    def _silent(container: Container, host: str, reason: str) -> RegistryUnreachableError:
        lines = container.logs(tail=_SHOWN_LINES).decode(errors="replace").strip()
        return RegistryUnreachableError(
            f"start the local registry, the container {NAME}",
            at=f"http://{host}/v2/",
            reason=f"{reason}{f'; it said:{chr(10)}{lines}{chr(10)}' if lines else ''}",
            remedy=f"remove it (docker rm -f {NAME}; images stay in its volume) and deploy again",
        )


def is_registry(host: str) -> bool:
    """Return whether a registry answers at `host` (``address:port``), plainly. Anything else that answers is none."""
    connection = http.client.HTTPConnection(host, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/")
        response = connection.getresponse()
        # Source: https://distribution.github.io/distribution/spec/api/#api-version-check
        return (
            response.status in {200, 401} and response.headers.get("Docker-Distribution-Api-Version") == "registry/2.0"
        )
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _published_port(container: Container) -> int:
    """Return the port that the container was made with; it may be older than the setting."""
    bindings: dict[str, Any] = container.attrs["HostConfig"].get("PortBindings") or {}
    published = bindings.get(_PORT_INSIDE) or [{}]
    port = str(published[0].get("HostPort") or "")
    if not port.isdigit():
        raise RegistryError(
            "find the local registry",
            at=NAME,
            reason="the container does not publish its port 5000",
            remedy=f"remove it: docker rm -f {NAME}",
        )
    return int(port)


@contextlib.contextmanager
def _explained(tried: str, at: str) -> Iterator[None]:
    """Turn what the SDK raises into an error of the family."""
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError) as error:  # those of requests are OSErrors
        reason = str(getattr(error, "explanation", None) or error)
        raise RegistryUnreachableError(
            tried, at=at, reason=reason, remedy=f"look at it: docker inspect {NAME}; docker logs {NAME}"
        ) from error
