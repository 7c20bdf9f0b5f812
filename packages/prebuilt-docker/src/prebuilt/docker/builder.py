"""The builder ``docker``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prebuilt.core.build_service import (
    BuildOutput,
    BuildRequest,
    Cancellation,
    DockerBuildService,
    DockerfileBuildOptions,
    check_registry,
)
from prebuilt.core.context_archive import published_context
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.dockerfile import proxy_arguments
from prebuilt.core.errors import BuildError, EngineError, PrebuiltError
from prebuilt.core.progress import EchoProgress, ImageProgress
from prebuilt.core.settings import Settings
from prebuilt.core.tree import Content
from prebuilt.docker.build_config import DockerBuildConfig
from prebuilt.docker.buildkit import BuildKitError
from prebuilt.docker.classic import ClassicBuildError, build_classic
from prebuilt.docker.engine_images import image_facts
from prebuilt.docker.failures import answer_of, build_failure, cut_off, too_slow
from prebuilt.docker.image_build import DeadlineError, ImageBuild, Limits
from prebuilt.docker.push import ImagePush
from prebuilt.docker.way import Way
from prebuilt.oci.docker_config import Login
from prebuilt.oci.dockerfile_images import pulled_repositories
from prebuilt.oci.logins import find_logins
from prebuilt.oci.pulled_image import PulledImage
from prebuilt.oci.reference import Reference, parse_reference, split_repository

if TYPE_CHECKING:
    import docker

_ANSWER_TIMEOUT_S = 600.0  # a registry may take minutes to file a large layer, and the engine says nothing meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What to build and where to push it."""

    dockerfile: str
    context: Mapping[str, Content]
    platform: str | None
    reference: Reference
    credentials: Credentials | None
    limits: Limits
    stage_image: str | None = None


class LocalDockerBuildService(DockerBuildService):
    """Builds and pushes with the Docker Engine that the ``docker`` command would use.

    Nothing is asked of the engine, and its SDK is not imported, before there is something to build. Each build has a
    connection of its own.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Build as `settings` say; those of this process if None."""
        self._settings = settings or Settings.load()
        self._config = DockerBuildConfig.from_settings(self._settings)
        self._way: Way | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Ask the engine whether it is there and builds as the settings want.

        Raises:
            BuildError: The builder that they ask for cannot be had.
            EngineError: No engine answers, or it refuses this user.
        """
        with self._connected() as client:
            self._choose(client, None)

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | None:
        """Build and push `request`; return the manifest's descriptor, or None where the engine cannot tell (Podman).

        Raises:
            BuildError: It failed; with the last lines of what the engine said.
            CancelledError: The request was cancelled.
            EngineError: No engine answers, or it refuses this user.
            FetchError: A package that has to travel in the context could not be downloaded.
            RegistryError: The image could not be pushed.
            StorageError: The disk here is full, or a file of the context cannot be read.
        """
        request.check_registries("Docker")
        reference = parse_reference(request.reference)
        request.cancellation.check()
        limits = Limits.start(request.cancellation, self._config.timeout_s)
        with self._connected() as client:
            way = self._choose(client, progress)
            with request.as_dockerfile(way.form, progress) as rendered:
                order = _Order(
                    dockerfile=rendered.dockerfile,
                    context=rendered.context,
                    platform=str(rendered.platform),
                    reference=reference,
                    credentials=request.credentials,
                    limits=limits,
                    stage_image=rendered.stage_image,
                )
                return self._build_and_push(client, way, order, progress)

    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`; tell why through `echo` and return False if that failed.

        Args:
            dockerfile: Its text, in any form that the engine's builder knows.
            context_files: POSIX file name to ``str`` or ``bytes``.
            image_tag: What to push.
            push_credentials: ``username`` and ``password``; without them, those of Docker's configuration are used.
            echo: Takes each line of output.
            target_platform: ``linux/amd64``; None for the engine's own.
        """
        progress = EchoProgress(echo)
        try:
            check_registry(image_tag, "Docker")
            reference = parse_reference(image_tag)
            with self._connected() as client:
                order = _Order(
                    dockerfile=dockerfile,
                    context=published_context(context_files),
                    platform=target_platform,
                    reference=reference,
                    credentials=Credentials.published(push_credentials),
                    limits=Limits.start(Cancellation(), self._config.timeout_s),
                )
                self._build_and_push(client, self._choose(client, progress), order, progress)
        except BuildError as error:
            echo(PrebuiltError.__str__(error))  # its output was echoed as it came
            return False
        except PrebuiltError as error:
            echo(str(error))
            return False
        return True

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return what Dockerfiles may use: the plain form, which both builders take, where no engine answers."""
        try:
            with self._connected() as client:
                way = self._choose(client, None)
        except (EngineError, BuildError):
            return DockerfileBuildOptions()
        return DockerfileBuildOptions(buildkit_deferred_input_mounts=way.form == "buildkit")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[docker.APIClient]:
        from prebuilt.docker.engine import connect

        client = connect(self._settings, timeout_s=_ANSWER_TIMEOUT_S)
        try:
            yield client.api
        finally:
            client.close()

    def _choose(self, client: docker.APIClient, progress: ImageProgress | None) -> Way:
        """Return how to build: chosen once, and said once."""
        with self._lock:
            if self._way is None:
                way = Way.choose(client, self._settings, self._config)
                if progress is None:
                    return way
                progress.note(f"building with {way.why}")
                self._way = way
            return self._way

    def _build_and_push(
        self, client: docker.APIClient, way: Way, order: _Order, progress: ImageProgress
    ) -> Descriptor | None:
        output, at, logins = BuildOutput(progress), str(order.reference), self._logins(order)
        build = ImageBuild(
            dockerfile=order.dockerfile,
            context=order.context,
            platform=order.platform,
            arguments=proxy_arguments(self._settings.environ),
            network=self._config.network,
            limits=order.limits,
            output=output,
            logins=logins,
            stage_image=order.stage_image,
        )
        push = ImagePush(
            client=client,
            image=build.name,
            reference=order.reference,
            login=logins.get(_host(order.reference)),
            progress=progress,
            limits=order.limits,
        )
        with contextlib.ExitStack() as clean_up:
            clean_up.callback(push.remove)
            try:
                progress.state("building with BuildKit" if way.command else "building with Docker's classic builder")
                _build(client, way, build, at, output)
                progress.state("pushing")
                descriptor = push.push()
            except DeadlineError as error:
                raise too_slow(at, order.limits.timeout_s, output.last_lines) from error
            if self._config.keeps_images:
                clean_up.pop_all()
                push.forget_build()
        return descriptor

    def _logins(self, order: _Order) -> Mapping[str, Login]:
        """Return the logins, for where it is pushed to and for where its bases are, that are not in Docker's file."""
        given = {_host(order.reference): order.credentials} if order.credentials else {}
        names = (order.reference.repository, *pulled_repositories(order.dockerfile))
        return find_logins(names, self._settings, given=given, beyond_docker=True)


def _build(client: docker.APIClient, way: Way, build: ImageBuild, at: str, output: BuildOutput) -> None:
    import docker.errors
    import requests
    import urllib3

    try:
        if way.command is not None:
            way.command.build(build)
        else:
            build_classic(client, build)
        _check_platform(client, build, at)
    except docker.errors.APIError as error:
        raise build_failure(at, answer_of(error), output.last_lines) from error
    except BuildKitError as error:
        raise build_failure(at, str(error), error.output, PulledImage.find(error.pulled, build.stage_image)) from error
    except ClassicBuildError as error:
        pulled = PulledImage.find(error.pulled, build.stage_image)
        raise build_failure(at, str(error), output.last_lines, pulled) from error
    except docker.errors.DockerException as error:
        raise build_failure(at, str(error), output.last_lines) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise cut_off("build an image with Docker", at, error) from error


def _check_platform(client: docker.APIClient, build: ImageBuild, at: str) -> None:
    """Refuse an image for another platform than was asked for: a base by digest decides for itself."""
    if build.platform is None:
        return
    wanted = build.platform.split("/")[1]
    built = (image_facts(client, build.name) or {}).get("Architecture")
    if built != wanted:
        raise BuildError(
            "build an image with Docker",
            at=at,
            reason=f"it is for {built}, and {wanted} was asked for",
            remedy="use a base image that exists for that platform",
        )


def _host(reference: Reference) -> str:
    return split_repository(reference.repository)[0]


_: type[DockerBuildService] = LocalDockerBuildService
